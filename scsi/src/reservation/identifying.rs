//! What hosts wrote onto a unit for their operators (SPC-4, 5.4): REPORT and SET IDENTIFYING INFORMATION.

use serde::{Deserialize, Serialize};

/// IDENTIFYING INFORMATION TYPE (SPC-4, 6.32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentifyingType {
    /// 00h: peripheral device identifying information, any bytes.
    Device,
    /// 02h: peripheral device text identifying information, UTF-8 that ends with a null character.
    Text,
}

impl IdentifyingType {
    /// All of them, in ascending order.
    pub const ALL: [Self; 2] = [Self::Device, Self::Text];

    /// The seven-bit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Device => 0x00,
            Self::Text => 0x02,
        }
    }

    /// The type of a code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// How many bytes it holds: as many as the standard wants to be held at least.
    pub const fn bytes_max(self) -> u16 {
        match self {
            Self::Device => 64,
            Self::Text => 256,
        }
    }

    /// Whether something may be set; nothing always may, and clears it.
    pub fn takes(self, info: &[u8]) -> bool {
        let fits = info.len() <= usize::from(self.bytes_max());
        fits && match (self, info) {
            (Self::Device, _) | (_, []) => true,
            (Self::Text, [text @ .., 0]) => std::str::from_utf8(text).is_ok_and(|text| !text.contains('\0')),
            (Self::Text, _) => false,
        }
    }
}

/// What was set last of each type; empty where nothing is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identifying {
    #[serde(default)]
    device: Vec<u8>,
    #[serde(default)]
    text: Vec<u8>,
}

impl Identifying {
    /// What is set of a type.
    pub fn get(&self, kind: IdentifyingType) -> &[u8] {
        match kind {
            IdentifyingType::Device => &self.device,
            IdentifyingType::Text => &self.text,
        }
    }

    /// Sets it. Whether that changed anything.
    pub(super) fn set(&mut self, kind: IdentifyingType, info: &[u8]) -> bool {
        let place = match kind {
            IdentifyingType::Device => &mut self.device,
            IdentifyingType::Text => &mut self.text,
        };
        let differs = place != info;
        place.clear();
        place.extend_from_slice(info);
        differs
    }
}

//! Sense data (SPC-4, 4.5).

use std::fmt;

/// Sense key (SPC-4, 4.5): those that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SenseKey {
    /// 0h: nothing to tell; what REQUEST SENSE finds mostly.
    NoSense,
    /// 2h.
    NotReady,
    /// 3h.
    MediumError,
    /// 5h.
    IllegalRequest,
    /// 6h.
    UnitAttention,
    /// 7h.
    DataProtect,
    /// Ah.
    CopyAborted,
    /// Eh.
    Miscompare,
}

impl SenseKey {
    /// The four-bit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::NoSense => 0x0,
            Self::NotReady => 0x2,
            Self::MediumError => 0x3,
            Self::IllegalRequest => 0x5,
            Self::UnitAttention => 0x6,
            Self::DataProtect => 0x7,
            Self::CopyAborted => 0xa,
            Self::Miscompare => 0xe,
        }
    }
}

/// Additional sense code and qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdditionalSense(pub u8, pub u8);

/// The additional sense codes that are used, under their names in SPC-4.
pub mod asc {
    use super::AdditionalSense as A;

    /// NO ADDITIONAL SENSE INFORMATION.
    pub const NONE: A = A(0x00, 0x00);
    /// LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION.
    pub const ACCESS_STATE_TRANSITION: A = A(0x04, 0x0a);
    /// LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE.
    pub const PORT_STANDBY: A = A(0x04, 0x0b);
    /// LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE.
    pub const PORT_UNAVAILABLE: A = A(0x04, 0x0c);
    /// LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS.
    pub const SANITIZE_IN_PROGRESS: A = A(0x04, 0x1b);
    /// UNREACHABLE COPY TARGET.
    pub const UNREACHABLE_COPY_TARGET: A = A(0x08, 0x04);
    /// INVALID FIELD IN COMMAND INFORMATION UNIT: the transport announced another length than the CDB.
    pub const INVALID_FIELD_IN_INFORMATION_UNIT: A = A(0x0e, 0x03);
    /// UNRECOVERED READ ERROR.
    pub const UNRECOVERED_READ_ERROR: A = A(0x11, 0x00);
    /// PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LIST_LENGTH: A = A(0x1a, 0x00);
    /// MISCOMPARE DURING VERIFY OPERATION.
    pub const MISCOMPARE_DURING_VERIFY: A = A(0x1d, 0x00);
    /// INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPERATION_CODE: A = A(0x20, 0x00);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const LBA_OUT_OF_RANGE: A = A(0x21, 0x00);
    /// INVALID FIELD IN CDB.
    pub const INVALID_FIELD_IN_CDB: A = A(0x24, 0x00);
    /// LOGICAL UNIT NOT SUPPORTED.
    pub const LOGICAL_UNIT_NOT_SUPPORTED: A = A(0x25, 0x00);
    /// INVALID FIELD IN PARAMETER LIST.
    pub const INVALID_FIELD_IN_PARAMETER_LIST: A = A(0x26, 0x00);
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    pub const INVALID_RELEASE: A = A(0x26, 0x04);
    /// TOO MANY TARGET DESCRIPTORS.
    pub const TOO_MANY_TARGET_DESCRIPTORS: A = A(0x26, 0x06);
    /// UNSUPPORTED TARGET DESCRIPTOR TYPE CODE.
    pub const UNSUPPORTED_TARGET_DESCRIPTOR: A = A(0x26, 0x07);
    /// TOO MANY SEGMENT DESCRIPTORS.
    pub const TOO_MANY_SEGMENT_DESCRIPTORS: A = A(0x26, 0x08);
    /// UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE.
    pub const UNSUPPORTED_SEGMENT_DESCRIPTOR: A = A(0x26, 0x09);
    /// INLINE DATA LENGTH EXCEEDED.
    pub const INLINE_DATA_LENGTH: A = A(0x26, 0x0b);
    /// WRITE PROTECTED.
    pub const WRITE_PROTECTED: A = A(0x27, 0x00);
    /// SPACE ALLOCATION FAILED WRITE PROTECT.
    pub const SPACE_ALLOCATION_FAILED: A = A(0x27, 0x07);
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    pub const POWER_ON_OR_RESET: A = A(0x29, 0x00);
    /// BUS DEVICE RESET FUNCTION OCCURRED: a LOGICAL UNIT RESET was carried out.
    pub const RESET_FUNCTION_OCCURRED: A = A(0x29, 0x03);
    /// MODE PARAMETERS CHANGED.
    pub const MODE_PARAMETERS_CHANGED: A = A(0x2a, 0x01);
    /// RESERVATIONS PREEMPTED.
    pub const RESERVATIONS_PREEMPTED: A = A(0x2a, 0x03);
    /// RESERVATIONS RELEASED.
    pub const RESERVATIONS_RELEASED: A = A(0x2a, 0x04);
    /// REGISTRATIONS PREEMPTED.
    pub const REGISTRATIONS_PREEMPTED: A = A(0x2a, 0x05);
    /// ASYMMETRIC ACCESS STATE CHANGED.
    pub const ACCESS_STATE_CHANGED: A = A(0x2a, 0x06);
    /// CAPACITY DATA HAS CHANGED.
    pub const CAPACITY_CHANGED: A = A(0x2a, 0x09);
    /// TIMESTAMP CHANGED.
    pub const TIMESTAMP_CHANGED: A = A(0x2a, 0x10);
    /// COMMANDS CLEARED BY ANOTHER INITIATOR.
    pub const COMMANDS_CLEARED: A = A(0x2f, 0x00);
    /// SANITIZE COMMAND FAILED.
    pub const SANITIZE_FAILED: A = A(0x31, 0x03);
    /// INSUFFICIENT REGISTRATION RESOURCES.
    pub const NO_REGISTRATION_RESOURCES: A = A(0x55, 0x04);
    /// DEVICE IDENTIFIER CHANGED.
    pub const DEVICE_IDENTIFIER_CHANGED: A = A(0x3f, 0x05);
    /// REPORTED LUNS DATA HAS CHANGED.
    pub const REPORTED_LUNS_CHANGED: A = A(0x3f, 0x0e);
}

/// Where in the CDB or the parameter list the fault is (SPC-4, 4.5.2.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldPointer {
    /// In the CDB, else in the parameter list.
    pub in_cdb: bool,
    /// Byte offset.
    pub byte: u16,
    /// The field's most significant bit, where it is less than a byte.
    pub bit: Option<u8>,
}

/// Sense data: what went wrong, or what an initiator must hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sense {
    /// The key.
    pub key: SenseKey,
    /// The additional sense code and qualifier.
    pub code: AdditionalSense,
    /// The INFORMATION field, where it is valid.
    pub information: Option<u64>,
    /// The faulty field, where one can be named.
    pub field: Option<FieldPointer>,
    /// PROGRESS INDICATION, in parts of 65,536 (SPC-4, 4.5.2.4.4); only without `field`.
    pub progress: Option<u16>,
}

impl Sense {
    /// NO SENSE.
    pub const NONE: Self = Self::new(SenseKey::NoSense, asc::NONE);
    /// 05/20/00.
    pub const INVALID_OPERATION_CODE: Self = Self::new(SenseKey::IllegalRequest, asc::INVALID_OPERATION_CODE);
    /// 05/21/00.
    pub const LBA_OUT_OF_RANGE: Self = Self::new(SenseKey::IllegalRequest, asc::LBA_OUT_OF_RANGE);
    /// 05/0E/03.
    pub const INVALID_FIELD_IN_INFORMATION_UNIT: Self =
        Self::new(SenseKey::IllegalRequest, asc::INVALID_FIELD_IN_INFORMATION_UNIT);
    /// 05/1A/00.
    pub const PARAMETER_LIST_LENGTH: Self = Self::new(SenseKey::IllegalRequest, asc::PARAMETER_LIST_LENGTH);
    /// 05/25/00. Only for a LUN that is committed as not mapped, never for our own trouble (I8).
    pub const LOGICAL_UNIT_NOT_SUPPORTED: Self =
        Self::new(SenseKey::IllegalRequest, asc::LOGICAL_UNIT_NOT_SUPPORTED);
    /// 07/27/00.
    pub const WRITE_PROTECTED: Self = Self::new(SenseKey::DataProtect, asc::WRITE_PROTECTED);
    /// 07/27/07.
    pub const SPACE_ALLOCATION_FAILED: Self = Self::new(SenseKey::DataProtect, asc::SPACE_ALLOCATION_FAILED);
    /// 03/31/03: a SANITIZE could not be carried out, and nobody can tell what each block holds.
    pub const SANITIZE_FAILED: Self = Self::new(SenseKey::MediumError, asc::SANITIZE_FAILED);
    /// 02/04/0A.
    pub const TRANSITIONING: Self = Self::new(SenseKey::NotReady, asc::ACCESS_STATE_TRANSITION);
    /// 02/04/0B: the port group is standby (SPC-4, 5.15.2.5.4).
    pub const STANDBY: Self = Self::new(SenseKey::NotReady, asc::PORT_STANDBY);

    /// Key and code alone.
    pub const fn new(key: SenseKey, code: AdditionalSense) -> Self {
        Self {
            key,
            code,
            information: None,
            field: None,
            progress: None,
        }
    }

    /// 05/24/00, pointing at a whole byte of the CDB.
    pub const fn cdb_byte(byte: u16) -> Self {
        Self::field(asc::INVALID_FIELD_IN_CDB, true, byte, None)
    }

    /// 05/24/00, pointing at a field of the CDB by its most significant bit.
    pub const fn cdb_bit(byte: u16, bit: u8) -> Self {
        Self::field(asc::INVALID_FIELD_IN_CDB, true, byte, Some(bit))
    }

    /// 05/26/00, pointing at a byte of the parameter list.
    pub const fn parameter_byte(byte: u16) -> Self {
        Self::field(asc::INVALID_FIELD_IN_PARAMETER_LIST, false, byte, None)
    }

    const fn field(code: AdditionalSense, in_cdb: bool, byte: u16, bit: Option<u8>) -> Self {
        let mut sense = Self::new(SenseKey::IllegalRequest, code);
        sense.field = Some(FieldPointer { in_cdb, byte, bit });
        sense
    }

    /// 0E/1D/00 with the offset in bytes of the first difference (SBC-3, COMPARE AND WRITE). VERIFY gives it in the same way.
    pub const fn miscompare(offset: u64) -> Self {
        let mut sense = Self::new(SenseKey::Miscompare, asc::MISCOMPARE_DURING_VERIFY);
        sense.information = Some(offset);
        sense
    }

    /// 03/11/00 with the address of the first block that no replica has any more (SBC-3, 4.18). Never for our own trouble (I8).
    pub const fn unreadable(lba: u64) -> Self {
        let mut sense = Self::new(SenseKey::MediumError, asc::UNRECOVERED_READ_ERROR);
        sense.information = Some(lba);
        sense
    }

    /// 02/04/1B with how far it is.
    pub const fn sanitizing(progress: u16) -> Self {
        let mut sense = Self::new(SenseKey::NotReady, asc::SANITIZE_IN_PROGRESS);
        sense.progress = Some(progress);
        sense
    }

    /// The three sense key specific bytes, where there are any.
    fn key_specific(&self) -> Option<[u8; 3]> {
        let progress = || {
            let [high, low] = self.progress?.to_be_bytes();
            Some([0x80, high, low])
        };
        self.field.map(FieldPointer::key_specific).or_else(progress)
    }

    /// The bytes as they go out: fixed format, or descriptor format where INFORMATION needs more than 32 bits.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self.information {
            Some(information) if information > u64::from(u32::MAX) => self.descriptor(),
            _ => self.fixed(),
        }
    }

    /// Fixed format, 18 bytes, response code 70h (SPC-4, 4.5.3). An INFORMATION that does not fit is left out as not valid.
    pub fn fixed(&self) -> Vec<u8> {
        let mut data = vec![0; 18];
        data[0] = 0x70;
        data[2] = self.key.code();
        if let Some(information) = self.information.and_then(|value| u32::try_from(value).ok()) {
            data[0] |= 0x80;
            data[3..7].copy_from_slice(&information.to_be_bytes());
        }
        data[7] = 10;
        data[12] = self.code.0;
        data[13] = self.code.1;
        if let Some(bytes) = self.key_specific() {
            data[15..18].copy_from_slice(&bytes);
        }
        data
    }

    /// Descriptor format, response code 72h (SPC-4, 4.5.2).
    pub fn descriptor(&self) -> Vec<u8> {
        let mut data = vec![0x72, self.key.code(), self.code.0, self.code.1, 0, 0, 0, 0];
        if let Some(information) = self.information {
            data.extend_from_slice(&[0x00, 10, 0x80, 0]);
            data.extend_from_slice(&information.to_be_bytes());
        }
        if let Some([first, second, third]) = self.key_specific() {
            data.extend_from_slice(&[0x02, 6, 0, 0, first, second, third, 0]);
        }
        data[7] = u8::try_from(data.len() - 8).unwrap_or(u8::MAX);
        data
    }
}

impl FieldPointer {
    /// The three sense key specific bytes.
    fn key_specific(self) -> [u8; 3] {
        let place = if self.in_cdb { 0x40 } else { 0 };
        let bit = self.bit.map_or(0, |bit| 0x08 | (bit & 0x07));
        let [high, low] = self.byte.to_be_bytes();
        [0x80 | place | bit, high, low]
    }
}

impl fmt::Display for Sense {
    /// As storage people write it: `02/04/0A`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:02X}/{:02X}/{:02X}",
            self.key.code(),
            self.code.0,
            self.code.1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_fixed_format() {
        assert_eq!(
            Sense::TRANSITIONING.to_bytes(),
            [0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 4, 0x0a, 0, 0, 0, 0]
        );
        assert_eq!(
            Sense::miscompare(0x1234).to_bytes(),
            [
                0xf0, 0, 0x0e, 0, 0, 0x12, 0x34, 10, 0, 0, 0, 0, 0x1d, 0, 0, 0, 0, 0
            ]
        );
        assert_eq!(
            Sense::cdb_bit(1, 7).to_bytes(),
            [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcf, 0, 1]
        );
        assert_eq!(Sense::parameter_byte(0x102).fixed()[15..], [0x80, 1, 2]);
    }

    #[test]
    fn golden_descriptor_format_for_wide_information() {
        let sense = Sense::miscompare(1 << 32);
        assert_eq!(
            sense.to_bytes(),
            [
                0x72, 0x0e, 0x1d, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0
            ]
        );
        assert_eq!(sense.fixed()[0], 0x70);
        assert_eq!(
            Sense::cdb_byte(4).descriptor(),
            [0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xc0, 0, 4, 0]
        );
    }

    #[test]
    fn printed_as_people_write_it() {
        assert_eq!(Sense::TRANSITIONING.to_string(), "02/04/0A");
    }
}

//! Additional Header Segments (RFC 7143, 11.2.2): extended CDB and bidirectional read length.

/// AHSType of an extended CDB.
const EXTENDED_CDB: u8 = 1;
/// AHSType of an Expected Bidirectional Read Data Length.
const READ_LENGTH: u8 = 2;
/// Longest CDB in bytes: SPC-5 allows 260 (a variable length CDB with 252 additional bytes).
const CDB_MAX: usize = 260;

/// Why Additional Header Segments cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AhsError {
    /// A segment runs over the end of the header.
    #[error("an additional header segment is longer than the header says")]
    Length,
    /// The same kind twice.
    #[error("two additional header segments of type {0}")]
    Twice(u8),
    /// A type that RFC 7143 does not know.
    #[error("additional header segment of unknown type {0}")]
    Type(u8),
    /// A CDB beyond what SPC-5 allows.
    #[error("a CDB of {0} bytes")]
    Cdb(usize),
}

/// A command descriptor block. The usual ones, of up to 16 bytes, are kept in place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cdb {
    /// The 16 bytes of the header, zeros behind shorter CDBs.
    Short([u8; 16]),
    /// Longer than 16 bytes.
    Long(Box<[u8]>),
}

impl Cdb {
    /// From bytes; shorter ones are filled up to 16 with zeros.
    ///
    /// # Errors
    /// [`AhsError::Cdb`] above 260 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, AhsError> {
        if bytes.len() > CDB_MAX {
            return Err(AhsError::Cdb(bytes.len()));
        }
        if bytes.len() > 16 {
            return Ok(Self::Long(bytes.into()));
        }
        let mut short = [0; 16];
        short[..bytes.len()].copy_from_slice(bytes);
        Ok(Self::Short(short))
    }

    /// All bytes, at least 16.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }

    /// The part that goes into the Basic Header Segment.
    pub fn head(&self) -> [u8; 16] {
        let mut head = [0; 16];
        head.copy_from_slice(&self.as_bytes()[..16]);
        head
    }
}

/// What the Additional Header Segments of a SCSI Command add.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extra {
    /// The CDB bytes behind the first 16.
    pub cdb_tail: Vec<u8>,
    /// Expected Bidirectional Read Data Length in bytes.
    pub read_length: Option<u32>,
}

impl Extra {
    /// Reads all segments.
    ///
    /// # Errors
    /// [`AhsError`]: what is wrong with them.
    pub fn parse(mut ahs: &[u8]) -> Result<Self, AhsError> {
        let mut extra = Self::default();
        let mut cdb_seen = false;
        while !ahs.is_empty() {
            let [high, low, kind, rest @ ..] = ahs else {
                return Err(AhsError::Length);
            };
            // The length counts what follows the type byte, the reserved byte included, padding not.
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            let body = rest.get(..len).ok_or(AhsError::Length)?;
            match (*kind & 0x3f, body) {
                (EXTENDED_CDB, _) if cdb_seen => return Err(AhsError::Twice(EXTENDED_CDB)),
                (EXTENDED_CDB, [_, tail @ ..]) if tail.len() > CDB_MAX - 16 => {
                    return Err(AhsError::Cdb(tail.len() + 16));
                }
                (EXTENDED_CDB, [_, tail @ ..]) => {
                    cdb_seen = true;
                    extra.cdb_tail = tail.to_vec();
                }
                (READ_LENGTH, _) if extra.read_length.is_some() => return Err(AhsError::Twice(READ_LENGTH)),
                (READ_LENGTH, [_, a, b, c, d]) => {
                    extra.read_length = Some(u32::from_be_bytes([*a, *b, *c, *d]));
                }
                (EXTENDED_CDB | READ_LENGTH, _) => return Err(AhsError::Length),
                (kind, _) => return Err(AhsError::Type(kind)),
            }
            let whole = (3 + len).next_multiple_of(4);
            ahs = ahs.get(whole..).ok_or(AhsError::Length)?;
        }
        Ok(extra)
    }

    /// Writes all segments, padded to whole words.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut segment = |kind: u8, body: &[u8]| {
            let len = u16::try_from(body.len() + 1).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&[kind, 0]);
            bytes.extend_from_slice(body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        };
        if !self.cdb_tail.is_empty() {
            segment(EXTENDED_CDB, &self.cdb_tail);
        }
        if let Some(length) = self.read_length {
            segment(READ_LENGTH, &length.to_be_bytes());
        }
        bytes
    }
}

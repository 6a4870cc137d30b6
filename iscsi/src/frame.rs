//! Cutting PDUs out of a byte stream, with both digests (RFC 7143, 11.1 and 11.2).

use bytes::{Buf, BytesMut};

use crate::pdu::{BHS_LEN, Bhs, Frame};

/// Length of a digest in bytes.
const DIGEST_LEN: usize = 4;

/// Which digests are on (CRC32C; RFC 7143, 13.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digests {
    /// HeaderDigest: over header and Additional Header Segments.
    pub header: bool,
    /// DataDigest: over the data segment with its padding.
    pub data: bool,
}

/// Bytes that are no PDU that may be sent here. The connection is lost: its framing cannot be trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header digest does not match.
    #[error("header digest is {found:08x}, the header's is {computed:08x}")]
    HeaderDigest {
        /// As sent.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// The data digest does not match.
    #[error("data digest is {found:08x}, the data's is {computed:08x}")]
    DataDigest {
        /// As sent.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// Longer data segment than was declared; found before any of it is buffered.
    #[error("data segment of {len} bytes, the limit is {max}")]
    DataLength {
        /// As the header says.
        len: usize,
        /// MaxRecvDataSegmentLength.
        max: usize,
    },
    /// Longer Additional Header Segments than any PDU needs.
    #[error("additional header segments of {len} bytes, the limit is {max}")]
    AhsLength {
        /// As the header says.
        len: usize,
        /// The limit.
        max: usize,
    },
}

/// A data digest error keeps the header, so that it can be sent back in a Reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFrame {
    /// What is wrong.
    pub error: FrameError,
    /// The header, where it could be trusted.
    pub bhs: Option<Bhs>,
}

/// What may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Longest data segment in bytes (our MaxRecvDataSegmentLength).
    pub data: usize,
    /// Longest Additional Header Segments in bytes.
    pub ahs: usize,
}

/// The receiving half of a connection's framing.
#[derive(Debug)]
pub struct Framer {
    digests: Digests,
    limits: FrameLimits,
    head: Option<(Bhs, bytes::Bytes)>,
}

impl Framer {
    /// Without digests, as every connection starts.
    pub const fn new(limits: FrameLimits) -> Self {
        Self {
            digests: Digests {
                header: false,
                data: false,
            },
            limits,
            head: None,
        }
    }

    /// Changes what holds from the next PDU on.
    pub const fn set(&mut self, digests: Digests, limits: FrameLimits) {
        self.digests = digests;
        self.limits = limits;
    }

    /// Takes the next whole PDU out of `buffer`; `None` where it is not whole yet. A header that is there is taken at once and
    /// its lengths are
    /// judged before any byte behind it is waited for.
    ///
    /// # Errors
    /// [`BadFrame`], after which the stream must not be read any further.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, BadFrame> {
        let (bhs, ahs) = match self.head.take() {
            Some(head) => head,
            None => match self.next_head(buffer)? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let (whole, padded) = self.body_len(&bhs);
        if buffer.len() < whole {
            self.head = Some((bhs, ahs));
            return Ok(None);
        }
        let mut body = buffer.split_to(whole).freeze();
        if whole > padded {
            let found = (&body[padded..]).get_u32_le();
            let computed = crc32c::crc32c(&body[..padded]);
            if found != computed {
                let error = FrameError::DataDigest { found, computed };
                return Err(BadFrame {
                    error,
                    bhs: Some(bhs),
                });
            }
        }
        body.truncate(bhs.data_len());
        Ok(Some(Frame { bhs, ahs, data: body }))
    }

    fn next_head(&self, buffer: &mut BytesMut) -> Result<Option<(Bhs, bytes::Bytes)>, BadFrame> {
        let Some(bytes) = buffer.first_chunk::<BHS_LEN>() else {
            return Ok(None);
        };
        let bhs = Bhs(*bytes);
        self.check_lengths(&bhs)?;
        let signed = BHS_LEN + bhs.ahs_len();
        let digest = if self.digests.header { DIGEST_LEN } else { 0 };
        if buffer.len() < signed + digest {
            return Ok(None);
        }
        if self.digests.header {
            let found = (&buffer[signed..]).get_u32_le();
            let computed = crc32c::crc32c(&buffer[..signed]);
            if found != computed {
                let error = FrameError::HeaderDigest { found, computed };
                return Err(BadFrame { error, bhs: None });
            }
        }
        buffer.advance(BHS_LEN);
        let ahs = buffer.split_to(bhs.ahs_len()).freeze();
        buffer.advance(digest);
        Ok(Some((bhs, ahs)))
    }

    fn check_lengths(&self, bhs: &Bhs) -> Result<(), BadFrame> {
        let (ahs, data) = (bhs.ahs_len(), bhs.data_len());
        let error = if ahs > self.limits.ahs {
            FrameError::AhsLength {
                len: ahs,
                max: self.limits.ahs,
            }
        } else if data > self.limits.data {
            FrameError::DataLength {
                len: data,
                max: self.limits.data,
            }
        } else {
            return Ok(());
        };
        // With a header digest the lengths may be damage as well; either way this is the end.
        Err(BadFrame { error, bhs: None })
    }

    /// Bytes behind the header: all of them, and those without the digest.
    fn body_len(&self, bhs: &Bhs) -> (usize, usize) {
        let padded = bhs.data_len().next_multiple_of(4);
        let digest = if self.digests.data && padded > 0 {
            DIGEST_LEN
        } else {
            0
        };
        (padded + digest, padded)
    }

    /// How many bytes the buffer must hold for the next step: what is left of a PDU whose header was taken, else a whole header. Never more
    /// than the limits allow, whatever the peer says.
    pub fn needs(&self, buffer: &BytesMut) -> usize {
        if let Some((bhs, _)) = &self.head {
            return self.body_len(bhs).0;
        }
        let ahs = buffer
            .first_chunk::<BHS_LEN>()
            .map_or(0, |bytes| Bhs(*bytes).ahs_len().min(self.limits.ahs));
        BHS_LEN + ahs + if self.digests.header { DIGEST_LEN } else { 0 }
    }

    /// Whether a PDU has begun, with `buffered` bytes in the buffer.
    pub const fn is_inside(&self, buffered: usize) -> bool {
        self.head.is_some() || buffered > 0
    }
}

#[cfg(test)]
#[path = "frame_test.rs"]
mod tests;

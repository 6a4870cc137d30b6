//! How the simulator numbers extents. What a node does between its planes is the product's own code (`holdfast_planes`).

use holdfast_types::ExtentId;

pub(super) fn extent_id(extent: usize) -> ExtentId {
    ExtentId::from_u128(extent as u128 + 1)
}

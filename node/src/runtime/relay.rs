//! What another member is asked to do or to say, over its admin service.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use holdfast_proto::admin::ScrubExtentRequest;
use holdfast_trust::{AdminRole, Credentials};
use holdfast_types::ExtentId;

use super::running::Running;
use crate::admin::{AdminAddress, AdminClient};

impl Running {
    /// Has an extent's replicas compared. Its primary does it: one on another node is asked to.
    pub(crate) async fn scrub(&self, extent: ExtentId, name: &str, relayed: bool) -> anyhow::Result<()> {
        let state = self.control.state();
        let primary = state.extents.get(&extent).and_then(|extent| extent.primary);
        let Some(primary) = primary else {
            bail!("extent {name} has no primary at present: try again when it is served");
        };
        if primary != self.me && relayed {
            bail!("extent {name} is moving to another primary: try again in a moment");
        }
        if primary != self.me {
            let member = state.node(primary).context("the primary is no member")?;
            let Some(address) = member.addresses.admin else {
                bail!(
                    "extent {name}: ask its primary, {}, whose admin service is not reached from here",
                    member.name
                );
            };
            let mut client = self.other(address, AdminRole::Operator).await?;
            let request = ScrubExtentRequest {
                extent: name.to_owned(),
                relayed: true,
            };
            return client.scrub_extent(request).await.map(drop);
        }
        if !self.data.as_ref().is_some_and(|data| data.scrub(extent)) {
            bail!("extent {name} is not served yet: try again in a moment");
        }
        Ok(())
    }

    /// The admin service of another member, as its address is known.
    pub(crate) async fn other(&self, address: SocketAddr, role: AdminRole) -> anyhow::Result<AdminClient> {
        let address = AdminAddress::Tcp(address);
        if self.open_admin {
            return AdminClient::connect(&address).await;
        }
        let pem = self.trust.issue_admin(role, "another-node")?;
        AdminClient::connect_as(&address, Some(Credentials::from_pem(pem.as_bytes())?)).await
    }
}

//! Block devices of nodes: given, taken away and listed by the node that is asked, and looked at on all of them before an extent needs one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_proto::admin::{AddDeviceRequest, DeviceProgress, RemoveDeviceRequest};
use holdfast_raft::model::{AdminCommand, ClusterState, Command};
use holdfast_replication::store::{DeviceReport, DeviceState, Has};
use holdfast_trust::AdminRole;
use holdfast_types::{ByteSize, ExtentId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use utoipa::ToSchema;

use super::server::{failed, invalid};
use crate::runtime::Running;

/// What the caller hears.
pub(crate) type DeviceStream = ReceiverStream<Result<DeviceProgress, Status>>;

/// Between two words on how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// How long another node may take to say which devices it has.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// How a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeviceUse {
    /// Free, and zeros.
    Blank,
    /// It holds a replica of an extent.
    Extent,
    /// It held an extent that was deleted; `device add` makes it blank.
    Used,
    /// It is not there, or is another one.
    Gone,
}

/// A block device of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct DeviceStatus {
    pub(crate) id: String,
    /// By which name the node knows it.
    pub(crate) path: String,
    pub(crate) state: DeviceUse,
    /// Bytes of the device; `null` where it is gone.
    pub(crate) size_bytes: Option<u64>,
    /// The largest extent that it can hold; `null` where it is gone.
    pub(crate) room_bytes: Option<u64>,
    /// Name of the extent, or its id where the cluster does not have it any more.
    pub(crate) extent: Option<String>,
    /// Why it is gone.
    pub(crate) why: Option<String>,
}

impl DeviceStatus {
    fn of(report: DeviceReport, state: &ClusterState) -> Self {
        let known = |extent: ExtentId| state.extents.get(&extent).map(|extent| extent.name.clone());
        let (id, path) = (report.id.to_string(), report.path.display().to_string());
        let label = match report.label {
            Ok(label) => label,
            Err(why) => {
                return Self {
                    id,
                    path,
                    state: DeviceUse::Gone,
                    size_bytes: None,
                    room_bytes: None,
                    extent: None,
                    why: Some(why),
                };
            }
        };
        let named = label.state.extent();
        let (state, extent) = match label.state {
            DeviceState::Blank => (DeviceUse::Blank, None),
            DeviceState::Taken(extent) | DeviceState::Holds(extent) if known(extent).is_some() => {
                (DeviceUse::Extent, known(extent))
            }
            _ => (DeviceUse::Used, named.map(|extent| extent.to_string())),
        };
        Self {
            id,
            path,
            state,
            size_bytes: Some(label.bytes),
            room_bytes: Some(label.capacity()),
            extent,
            why: None,
        }
    }
}

/// Devices for people.
pub(crate) fn devices_text(devices: &[DeviceStatus]) -> String {
    if devices.is_empty() {
        return "This node has no devices; 'holdfast device add' gives it one.".to_owned();
    }
    let paths = devices.iter().map(|device| device.path.len());
    let width = paths.max().unwrap_or(0).max(4);
    let mut text = format!("{:<width$}  {:<10} STATE", "PATH", "ROOM");
    for device in devices {
        let room = device
            .room_bytes
            .map(|bytes| ByteSize(bytes >> 20 << 20).to_string());
        let state = match (device.state, &device.extent, &device.why) {
            (DeviceUse::Blank, ..) => "blank".to_owned(),
            (DeviceUse::Extent, Some(extent), _) => format!("extent {extent}"),
            (DeviceUse::Used, Some(extent), _) => format!("held extent {extent}, which is gone"),
            (DeviceUse::Gone, _, Some(why)) => format!("gone: {why}"),
            (state, ..) => format!("{state:?}").to_lowercase(),
        };
        let room = room.unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{:<width$}  {room:<10} {state}", device.path);
    }
    text
}

fn no_witness() -> Status {
    failed("a witness holds no data: ask a data node (--admin)")
}

/// Runs what waits for disks beside everything else.
async fn on_disk<T: Send + 'static>(
    running: &Arc<Running>,
    work: impl FnOnce(&Running) -> T + Send + 'static,
) -> Result<T, Status> {
    let running = Arc::clone(running);
    tokio::task::spawn_blocking(move || work(&running))
        .await
        .map_err(|error| Status::internal(error.to_string()))
}

/// The devices of this node.
pub(super) async fn list(running: &Arc<Running>) -> Result<Vec<DeviceStatus>, Status> {
    let all = on_disk(running, |running| running.data().map(|data| data.devices())).await?;
    let state = running.state();
    let all = all.ok_or_else(no_witness)?;
    Ok(all
        .into_iter()
        .map(|report| DeviceStatus::of(report, &state))
        .collect())
}

/// What the cluster has now, as this node knows it.
struct Present<'a>(&'a Running);

impl Has for Present<'_> {
    fn member(&self, node: NodeId) -> bool {
        self.0.state().node(node).is_some()
    }

    fn extent(&self, extent: ExtentId) -> bool {
        self.0.state().extents.contains_key(&extent)
    }
}

/// Gives this node a device. What is refused is refused before the first word on how far it is.
pub(super) async fn add(running: Arc<Running>, request: AddDeviceRequest) -> Result<DeviceStream, Status> {
    let AddDeviceRequest { path, confirm } = request;
    if running.data().is_none() {
        return Err(no_witness());
    }
    if !confirm.is_empty() && confirm != path {
        return Err(invalid(format!(
            "--confirm {confirm}: it is the device's path again, {path}"
        )));
    }
    let (tell, stream) = mpsc::channel(4);
    let (begin, begun) = oneshot::channel::<Result<(), Status>>();
    tokio::task::spawn_blocking(move || {
        let Some(data) = running.data() else { return };
        let mut begin = Some(begin);
        let mut told = None::<Instant>;
        let progress = |done_bytes, total_bytes| {
            if let Some(begin) = begin.take() {
                // Who asked may be gone, which the next word shows.
                let _ = begin.send(Ok(()));
            }
            if told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
                return !tell.is_closed();
            }
            told = Some(Instant::now());
            let message = String::new();
            let news = DeviceProgress {
                done_bytes,
                total_bytes,
                message,
            };
            tell.blocking_send(Ok(news)).is_ok()
        };
        let done = data.add_device(
            Path::new(&path),
            !confirm.is_empty(),
            &Present(&running),
            progress,
        );
        let last = done.map_err(failed).map(|message| DeviceProgress {
            done_bytes: 0,
            total_bytes: 0,
            message,
        });
        match (begin, last) {
            (Some(begin), Err(refused)) => drop(begin.send(Err(refused))),
            (begin, last) => {
                drop(begin.map(|begin| begin.send(Ok(()))));
                let _ = tell.blocking_send(last);
            }
        }
    });
    begun
        .await
        .map_err(|_| failed("the node stops"))?
        .map(|()| ReceiverStream::new(stream))
}

/// Takes a device from this node; what to say.
pub(super) async fn remove(running: Arc<Running>, request: RemoveDeviceRequest) -> Result<String, Status> {
    let RemoveDeviceRequest { device, confirm } = request;
    let done = on_disk(&running, move |running| {
        let state = running.state();
        let there = |extent| state.extents.get(&extent).map(|extent| extent.name.clone());
        running
            .data()
            .map(|data| data.remove_device(&device, &confirm, there))
    });
    done.await?.ok_or_else(no_witness)?.map_err(failed)
}

/// What a node must have for an extent.
enum Need {
    /// A blank device with so much room.
    Blank(u64),
    /// So much room on the device that the extent lies on.
    Room(u64),
}

/// Which nodes have to have what before the cluster decides.
fn needs(state: &ClusterState, command: &Command) -> Option<(String, BTreeMap<NodeId, Need>)> {
    let on_devices = |extent: &ExtentId| state.extents.get(extent).filter(|extent| extent.on_devices);
    match command {
        // Made already, by the same request: it is answered as it was.
        Command::CreateExtent(new)
            if new.on_devices && !new.thin && state.extent_named(&new.name).is_none() =>
        {
            let blank = |node: &NodeId| (*node, Need::Blank(new.size_bytes));
            Some((new.name.clone(), new.replicas.iter().map(blank).collect()))
        }
        Command::ResizeExtent { extent, size_bytes } => {
            let extent = on_devices(extent).filter(|extent| *size_bytes > extent.size_bytes)?;
            let room = |node: &NodeId| (*node, Need::Room(*size_bytes));
            Some((extent.name.clone(), extent.replicas.iter().map(room).collect()))
        }
        Command::Admin(AdminCommand::SetReplicas { extent, replicas }) => {
            let extent = on_devices(extent)?;
            let new = replicas.difference(&extent.replicas);
            let blank = |node: &NodeId| (*node, Need::Blank(extent.size_bytes));
            Some((extent.name.clone(), new.map(blank).collect()))
        }
        _ => None,
    }
}

/// Whether every node that a command concerns has the device that an extent on devices needs; what cannot be known, as warnings.
///
/// # Errors
/// `FAILED_PRECONDITION`: one has none; which, and what to do.
pub(super) async fn check_room(
    running: &Arc<Running>,
    state: &ClusterState,
    command: &Command,
) -> Result<Vec<String>, Status> {
    let Some((extent, needs)) = needs(state, command) else {
        return Ok(Vec::new());
    };
    let mut unsure = Vec::new();
    for (node, need) in needs {
        let Some(member) = state.node(node) else { continue };
        let name = &member.name;
        let devices = match node == running.me() {
            true => list(running).await,
            false => ask(running, member.addresses.admin).await,
        };
        let devices = match devices {
            Ok(devices) => devices,
            Err(why) => {
                unsure.push(format!(
                    "the devices of {name} were not looked at ({}): without a large enough one it keeps no replica",
                    why.message()
                ));
                continue;
            }
        };
        judge(&extent, name, &devices, &need)?;
    }
    Ok(unsure)
}

async fn ask(running: &Running, address: Option<std::net::SocketAddr>) -> Result<Vec<DeviceStatus>, Status> {
    let address = address.ok_or_else(|| failed("its admin service is not reached from here"))?;
    let asked = async {
        let mut client = running.other(address, AdminRole::Viewer).await?;
        client.devices().await
    };
    tokio::time::timeout(ASK_WITHIN, asked)
        .await
        .map_err(|_| failed("it does not answer"))?
        .map_err(failed)
}

fn judge(extent: &str, node: &str, devices: &[DeviceStatus], need: &Need) -> Result<(), Status> {
    let room = |device: &DeviceStatus| device.room_bytes.unwrap_or(0);
    match need {
        Need::Blank(bytes) => {
            let mut blank = devices.iter().filter(|device| device.state == DeviceUse::Blank);
            if blank.any(|device| room(device) >= *bytes) {
                return Ok(());
            }
            Err(failed(format!(
                "extent {extent}: {node} has no blank device with room for {bytes} bytes; see 'holdfast device list' there, and give it \
                 one with 'holdfast device add'"
            )))
        }
        Need::Room(bytes) => {
            let on = devices
                .iter()
                .find(|device| device.state == DeviceUse::Extent && device.extent.as_deref() == Some(extent));
            match on {
                Some(device) if room(device) < *bytes => Err(failed(format!(
                    "extent {extent}: {} of {node} has room for {} bytes of it, not for {bytes}",
                    device.path,
                    room(device)
                ))),
                _ => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(state: DeviceUse, mib: u64, extent: Option<&str>) -> DeviceStatus {
        DeviceStatus {
            id: String::new(),
            path: "/dev/disk/by-id/x".into(),
            state,
            size_bytes: Some((mib + 1) << 20),
            room_bytes: Some(mib << 20),
            extent: extent.map(str::to_owned),
            why: None,
        }
    }

    #[test]
    fn an_extent_needs_a_blank_device_and_room_to_grow() {
        let devices = [
            device(DeviceUse::Extent, 64, Some("db")),
            device(DeviceUse::Blank, 32, None),
            device(DeviceUse::Used, 128, Some("x")),
        ];
        let judged = |need| judge("db", "b", &devices, &need).map_err(|refused| refused.message().to_owned());
        judged(Need::Blank(32 << 20)).unwrap();
        let refused = judged(Need::Blank((32 << 20) + 512)).unwrap_err();
        assert!(refused.contains("b has no blank device"), "{refused}");
        judged(Need::Room(64 << 20)).unwrap();
        let refused = judged(Need::Room(65 << 20)).unwrap_err();
        assert!(
            refused.contains("/dev/disk/by-id/x of b has room for 67108864 bytes"),
            "{refused}"
        );
    }

    #[test]
    fn devices_in_words() {
        let gone = DeviceStatus {
            room_bytes: None,
            why: Some("No such file".into()),
            ..device(DeviceUse::Gone, 1, None)
        };
        let text = devices_text(&[device(DeviceUse::Extent, 64, Some("db")), gone]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "PATH               ROOM       STATE");
        assert_eq!(lines[1], "/dev/disk/by-id/x  64 MiB     extent db");
        assert!(lines[2].ends_with("gone: No such file"), "{text}");
        assert!(devices_text(&[]).contains("has no devices"));
    }
}

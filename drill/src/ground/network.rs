//! Machines on a network of their own: a network namespace each, joined by a bridge in which any link can be cut, one way or both.
//!
//! The process that makes it keeps its own namespace and reaches every machine, as one more machine named [`Network::SELF`]. Names carry
//! its process id, so that what a killed process left behind is found and taken away by the next one.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::{GroundError, call, claim, find, is_alive, needs_root};

type Result<T> = std::result::Result<T, GroundError>;

/// First part of the names of namespaces.
const MARK: &str = "hfnet";

/// Takes every cut back.
const FLUSH: &str = "flush chain bridge cuts links";

fn rule(from: &str, to: &str) -> String {
    rule_between(&port(0, from), &port(0, to))
}

fn rule_between(from: &str, to: &str) -> String {
    format!("add rule bridge cuts links iifname {from} oifname {to} drop")
}

/// The switch's end of a machine's interface: 0 is the network that all are on, from 1 on come further ones.
fn port(network: usize, machine: &str) -> String {
    match network {
        0 => format!("p-{machine}"),
        network => format!("p{network}-{machine}"),
    }
}

/// Far more than there are networks at a time.
const SUBNETS_TRIED: u32 = 1000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The programs that networks are made with.
#[derive(Debug, Clone)]
struct Programs {
    ip: PathBuf,
    nft: PathBuf,
    /// For slow links alone.
    tc: Option<PathBuf>,
}

/// A network of machines. Dropping it takes everything away.
#[derive(Debug)]
pub struct Network {
    programs: Programs,
    /// Namespace names begin with this: mark, process id, number.
    prefix: String,
    /// The first three bytes of all addresses.
    subnet: [u8; 3],
    /// What keeps others from taking them.
    _claim: UnixListener,
    machines: Vec<String>,
    /// Networks of some machines beside the one that all are on.
    further: Vec<Further>,
}

/// A further network.
#[derive(Debug)]
struct Further {
    subnet: [u8; 3],
    _claim: UnixListener,
}

/// Name of the process's own interface, within the 15 characters that there are.
fn own_interface(prefix: &str) -> String {
    prefix.replacen(MARK, "hf", 1)
}

/// A place in 10.0.0.0/8 that no other network on this machine has, looked for from this number on: those that are made side by side do not
/// meet.
fn free_subnet(first: u32) -> Option<([u8; 3], UnixListener)> {
    (0..SUBNETS_TRIED).find_map(|step| {
        let subnet = subnet(first.wrapping_add(step));
        let [a, b, c] = subnet;
        Some((subnet, claim(&format!("network {a}.{b}.{c}")).ok()?))
    })
}

fn subnet(number: u32) -> [u8; 3] {
    let [.., high, low] = number.wrapping_mul(2_654_435_761).to_be_bytes();
    [10, high | 0x40, low]
}

impl Network {
    /// As whom this process is plugged in.
    pub const SELF: &str = "self";

    /// A network of machines with these names (a few letters each).
    ///
    /// # Errors
    /// [`GroundError::Unavailable`] where none can be made at all; otherwise namespaces can be made, but this network cannot.
    pub fn make(machines: &[&str]) -> Result<Self> {
        needs_root("network namespaces")?;
        let (ip, nft) = (find("ip", "iproute2")?, find("nft", "nftables")?);
        let tc = find("tc", "iproute2").ok();
        let programs = Programs { ip, nft, tc };
        take_leftovers_away(&programs);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        let (subnet, claim) = free_subnet(id.wrapping_add(number))
            .ok_or_else(|| GroundError::Unavailable("every address for a network is taken".to_owned()))?;
        let network = Self {
            programs,
            prefix: format!("{MARK}{id}x{number}"),
            subnet,
            _claim: claim,
            machines: machines.iter().map(|name| (*name).to_owned()).collect(),
            further: Vec::new(),
        };
        network
            .probe()
            .map_err(|error| GroundError::Unavailable(format!("no network can be made here ({error})")))?;
        network.build()?;
        Ok(network)
    }

    /// Namespaces, pairs of virtual interfaces, bridges and filters on bridges: all of it must be there.
    fn probe(&self) -> Result<()> {
        self.ip(&["netns", "add", &self.switch()])?;
        self.ip_in(&self.switch(), &["link", "add", "name", "br0", "type", "bridge"])?;
        self.ip_in(&self.switch(), &["link", "set", "br0", "up"])?;
        self.nft(&["add", "table", "bridge", "cuts"])?;
        let hook = "{ type filter hook forward priority 0 ; policy accept ; }";
        self.nft(&["add", "chain", "bridge", "cuts", "links", hook])?;
        Ok(())
    }

    fn build(&self) -> Result<()> {
        for (at, name) in self.machines.iter().enumerate() {
            let space = self.space(name);
            self.ip(&["netns", "add", &space])?;
            self.ip_in(&space, &["link", "set", "lo", "up"])?;
            let port = format!("p-{name}");
            let switch = self.switch();
            self.ip_in(
                &space,
                &[
                    "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch,
                ],
            )?;
            let address = format!("{}/24", self.address_at(at));
            self.ip_in(&space, &["addr", "add", &address, "dev", "eth0"])?;
            self.ip_in(&space, &["link", "set", "eth0", "up"])?;
            self.plug(&port, "br0")?;
        }
        let own = own_interface(&self.prefix);
        let switch = self.switch();
        self.ip(&[
            "link", "add", &own, "type", "veth", "peer", "name", "p-self", "netns", &switch,
        ])?;
        let [a, b, c] = self.subnet;
        self.ip(&["addr", "add", &format!("{a}.{b}.{c}.254/24"), "dev", &own])?;
        self.ip(&["link", "set", &own, "up"])?;
        self.plug("p-self", "br0")
    }

    fn plug(&self, port: &str, bridge: &str) -> Result<()> {
        self.ip_in(&self.switch(), &["link", "set", port, "master", bridge])?;
        self.ip_in(&self.switch(), &["link", "set", port, "up"])
    }

    /// Gives these machines a further network, with an interface and an address of its own. Networks are numbered from 1.
    ///
    /// # Errors
    /// There is no such machine, or an interface cannot be made.
    pub fn add_network(&mut self, machines: &[&str]) -> Result<usize> {
        let first = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let (subnet, claim) = free_subnet(first)
            .ok_or_else(|| GroundError::Unavailable("every address for a network is taken".to_owned()))?;
        self.further.push(Further {
            subnet,
            _claim: claim,
        });
        let number = self.further.len();
        let (switch, bridge) = (self.switch(), format!("br{number}"));
        self.ip_in(&switch, &["link", "add", "name", &bridge, "type", "bridge"])?;
        self.ip_in(&switch, &["link", "set", &bridge, "up"])?;
        for machine in machines {
            let (space, port, own) = (self.space(machine), port(number, machine), format!("eth{number}"));
            let address = format!("{}/24", self.address_on(number, machine)?);
            self.ip_in(
                &space,
                &[
                    "link", "add", &own, "type", "veth", "peer", "name", &port, "netns", &switch,
                ],
            )?;
            self.ip_in(&space, &["addr", "add", &address, "dev", &own])?;
            self.ip_in(&space, &["link", "set", &own, "up"])?;
            self.plug(&port, &bridge)?;
        }
        Ok(number)
    }

    /// How many networks there are beside the one that all machines are on.
    pub const fn further(&self) -> usize {
        self.further.len()
    }

    /// A machine's address on a further network.
    ///
    /// # Errors
    /// There is no such machine or network.
    pub fn address_on(&self, network: usize, machine: &str) -> Result<Ipv4Addr> {
        let further = network.checked_sub(1).and_then(|at| self.further.get(at));
        let further = further.ok_or_else(|| GroundError::failed(network.to_string(), "no such network"))?;
        let [.., last] = self.address(machine)?.octets();
        let [a, b, c] = further.subnet;
        Ok(Ipv4Addr::new(a, b, c, last))
    }

    /// From now on nothing that `from` sends over a further network reaches `to`, until [`Self::heal`].
    ///
    /// # Errors
    /// The filter cannot be set.
    pub fn cut_on(&self, network: usize, from: &str, to: &str) -> Result<()> {
        self.nft(&[&rule_between(&port(network, from), &port(network, to))])
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.prefix)
    }

    fn space(&self, machine: &str) -> String {
        format!("{}-{machine}", self.prefix)
    }

    fn address_at(&self, at: usize) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, u8::try_from(at + 1).unwrap_or(u8::MAX))
    }

    /// A machine's address.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn address(&self, machine: &str) -> Result<Ipv4Addr> {
        let at = self.machines.iter().position(|name| name == machine);
        let at = at.ok_or_else(|| GroundError::failed(machine, "no such machine"))?;
        Ok(self.address_at(at))
    }

    /// Program and first arguments that start another program on a machine: its process is the one that is started.
    pub fn on(&self, machine: &str) -> (PathBuf, Vec<String>) {
        let arguments = ["netns", "exec", &self.space(machine)].map(str::to_owned);
        (self.programs.ip.clone(), arguments.to_vec())
    }

    /// Adds a machine that is no namespace: what it sends comes out of a tap device in the switch, as a virtual machine's does. Returns
    /// the device's name, and the address that the machine is to give itself.
    ///
    /// # Errors
    /// The device cannot be made.
    pub fn add_tap(&mut self, machine: &str) -> Result<(String, Ipv4Addr)> {
        let port = format!("p-{machine}");
        self.ip_in(&self.switch(), &["tuntap", "add", "dev", &port, "mode", "tap"])?;
        self.plug(&port, "br0")?;
        self.machines.push(machine.to_owned());
        Ok((port, self.address(machine)?))
    }

    /// As [`Self::on`], for a program that opens a tap device: it runs in the switch.
    pub fn on_switch(&self) -> (PathBuf, Vec<String>) {
        let arguments = ["netns", "exec", &self.switch()].map(str::to_owned);
        (self.programs.ip.clone(), arguments.to_vec())
    }

    /// From now on nothing that `from` sends reaches `to`.
    ///
    /// # Errors
    /// The filter cannot be set.
    pub fn cut(&self, from: &str, to: &str) -> Result<()> {
        self.nft(&[&rule(from, to)])
    }

    /// These links are cut, each in one direction (from, to), and no others. All of it is changed at one moment.
    ///
    /// # Errors
    /// The filter cannot be set.
    pub fn cut_these<'a>(&self, links: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<()> {
        let rules = links.into_iter().map(|(from, to)| rule(from, to));
        let all: Vec<String> = std::iter::once(FLUSH.to_owned()).chain(rules).collect();
        self.nft(&[&all.join("; ")])
    }

    /// Everything reaches everybody again.
    ///
    /// # Errors
    /// The filter cannot be set.
    pub fn heal(&self) -> Result<()> {
        self.nft(&[FLUSH])
    }

    /// From now on a machine hears no more than so many bytes a second, headers of every layer included. False where that cannot be had.
    ///
    /// # Errors
    /// It can be had, and fails.
    pub fn slow(&self, machine: &str, rate: u64) -> Result<bool> {
        let Some(tc) = &self.programs.tc else {
            return Ok(false);
        };
        let (space, tc, port) = (self.switch(), tc.to_string_lossy(), format!("p-{machine}"));
        // What waits is dropped beyond 10 ms, as a switch does it.
        let (rate, limit) = (format!("{}bit", rate * 8), (rate / 100).to_string());
        self.ip(&[
            "netns", "exec", &space, &tc, "qdisc", "replace", "dev", &port, "root", "tbf", "rate", &rate,
            "burst", "256k", "limit", &limit,
        ])?;
        Ok(true)
    }

    /// From now on a machine hears as much as it is sent again.
    ///
    /// # Errors
    /// The limit cannot be taken away.
    pub fn fast(&self, machine: &str) -> Result<()> {
        let Some(tc) = &self.programs.tc else {
            return Ok(());
        };
        let (space, tc, port) = (self.switch(), tc.to_string_lossy(), format!("p-{machine}"));
        self.ip(&["netns", "exec", &space, &tc, "qdisc", "del", "dev", &port, "root"])
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        call(&self.programs.ip, arguments).map(drop)
    }

    fn ip_in(&self, space: &str, arguments: &[&str]) -> Result<()> {
        self.ip(&[&["-n", space], arguments].concat())
    }

    fn nft(&self, arguments: &[&str]) -> Result<()> {
        let switch = self.switch();
        let nft = self.programs.nft.to_string_lossy().into_owned();
        self.ip(&[&["netns", "exec", &switch, &nft], arguments].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        take_away(&self.programs, |space| {
            space.starts_with(&format!("{}-", self.prefix))
        });
    }
}

/// As [`take_leftovers_away`], by who needs no network.
pub(super) fn sweep() {
    if let (Ok(ip), Ok(nft)) = (find("ip", "iproute2"), find("nft", "nftables")) {
        take_leftovers_away(&Programs { ip, nft, tc: None });
    }
}

/// Namespaces of those whose process is gone.
fn take_leftovers_away(programs: &Programs) {
    take_away(programs, |space| {
        let owner = space
            .strip_prefix(MARK)
            .and_then(|rest| rest.split_once('x'))
            .map(|(id, _)| id);
        owner.is_some_and(|id| id.parse::<u32>().is_ok() && !is_alive(id))
    });
}

/// Ends what runs in the chosen namespaces and removes them, with their interfaces.
fn take_away(programs: &Programs, is_chosen: impl Fn(&str) -> bool) {
    let spaces = call(&programs.ip, &["netns", "list"]).unwrap_or_default();
    let names = spaces.lines().filter_map(|line| line.split_whitespace().next());
    for space in names.filter(|space| is_chosen(space)) {
        let processes = call(&programs.ip, &["netns", "pids", space]).unwrap_or_default();
        for id in processes.split_whitespace().filter_map(|id| id.parse().ok()) {
            // Gone already is as good.
            let _ = Pid::from_raw(id).map(|pid| kill_process(pid, Signal::KILL));
        }
        // A namespace's interfaces go some time after it; the maker's own one goes now, so that its name is free.
        if let Some(prefix) = space.strip_suffix("-switch") {
            let _ = call(&programs.ip, &["link", "del", &own_interface(prefix)]);
        }
        if let Err(error) = call(&programs.ip, &["netns", "del", space]) {
            tracing::warn!(%space, %error, "a namespace is still there");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn reaches(network: &Network, from: &str, to: &str) -> bool {
        let (program, mut arguments) = network.on(from);
        let address = network.address(to).unwrap().to_string();
        let script = format!("exec 3<>/dev/tcp/{address}/9");
        arguments.extend(["timeout", "1", "bash", "-c", &script].map(str::to_owned));
        let output = Command::new(program).args(arguments).output().unwrap();
        // Nobody listens there: who reaches the machine is refused at once, who does not waits.
        String::from_utf8_lossy(&output.stderr).contains("refused")
    }

    #[test]
    fn networks_side_by_side_have_addresses_of_their_own() {
        let (first, claim) = free_subnet(1).unwrap();
        let (second, _other) = free_subnet(1).unwrap();
        assert_ne!(first, second);
        drop(claim);
        assert_eq!(free_subnet(1).unwrap().0, first);
    }

    #[test]
    fn a_cut_goes_one_way_and_heals_and_nothing_is_left() {
        let network = match Network::make(&["a", "b"]) {
            Err(GroundError::Unavailable(why)) => return eprintln!("left out: {why}"),
            made => made.unwrap(),
        };
        let prefix = network.prefix.clone();
        assert!(reaches(&network, "a", "b") && reaches(&network, "b", "a"));
        // Either way is needed for an answer.
        network.cut("a", "b").unwrap();
        assert!(!reaches(&network, "a", "b"));
        network.heal().unwrap();
        assert!(reaches(&network, "a", "b"));
        network.cut_these([("b", "a")]).unwrap();
        assert!(!reaches(&network, "a", "b"));
        network.cut_these([]).unwrap();
        assert!(reaches(&network, "a", "b"));
        let ip = network.programs.ip.clone();
        drop(network);
        assert!(!call(&ip, &["netns", "list"]).unwrap().contains(&prefix));
        let own = own_interface(&prefix);
        assert!(!call(&ip, &["link", "show"]).unwrap().contains(&own));
    }
}

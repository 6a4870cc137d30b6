//! Extents of a plan.

use holdfast_proto::admin::change_request::Change as OneChange;
use holdfast_proto::admin::{
    CreateExtentRequest, ResizeExtent, SetConfirmedReadsRequest, SetExtent, SetReplicas, SetWriteCacheRequest,
};

use super::call::Call;
use super::document::{Extent, NOBODY, Size};
use super::plan::{Action, Phase, Planner, arrow, differs};
use crate::status::Secondary;

/// Block size of a new extent where the document does not say.
const BLOCK_SIZE: u32 = 512;

impl Planner<'_> {
    pub(super) fn extents(&mut self) {
        let (document, present) = (self.document, self.present);
        for wanted in &document.extents {
            let known = present.configuration.extents.iter();
            let now = known.into_iter().find(|extent| extent.name == wanted.name);
            self.nodes_of(wanted, now);
            match now {
                None => self.new_extent(wanted),
                Some(now) => self.changed_extent(now, wanted),
            }
        }
        let known = present.configuration.extents.iter();
        let left: Vec<&str> = known
            .map(|extent| extent.name.as_str())
            .filter(|name| !document.extents.iter().any(|extent| extent.name == *name))
            .collect();
        if left.is_empty() {
            return;
        }
        let left = left.join(", ");
        self.notes.push(if self.prune {
            format!(
                "not in the document, and left as it is: extent {left}; --prune deletes no extent, since there may be data in it: \
                 'holdfast extent delete' does, one at a time"
            )
        } else {
            format!("not in the document, and left as it is: extent {left}")
        });
    }

    /// Nodes that the document names are data nodes, and the preferred one holds a replica.
    fn nodes_of(&mut self, wanted: &Extent, now: Option<&Extent>) {
        let place = format!("extent {}", wanted.name);
        let present = self.present;
        let data = &present.data_nodes;
        for node in wanted.replicas.iter().flatten() {
            if present.witnesses.contains(node) {
                self.fault(
                    &place,
                    format!("replicas: node '{node}' is a witness, and holds no data"),
                );
            } else if !data.contains(node) {
                let names = data.join(", ");
                self.fault(
                    &place,
                    format!("replicas: there is no node '{node}'; the data nodes are {names}"),
                );
            }
        }
        let holders = wanted
            .replicas
            .as_ref()
            .or(now.and_then(|now| now.replicas.as_ref()))
            .unwrap_or(data);
        if let Some(preferred) = &wanted.preferred
            && preferred != NOBODY
            && !holders.contains(preferred)
        {
            let names = holders.join(", ");
            self.fault(
                &place,
                format!("preferred = '{preferred}': it is one of {names}, or '{NOBODY}'"),
            );
        }
    }

    /// A whole number of blocks.
    fn blocks_of(&mut self, place: &str, size: Size, block: u32) {
        if !size.0.is_multiple_of(u64::from(block)) {
            self.fault(
                place,
                format!("size = {size}: it is a multiple of the block size, {block} bytes"),
            );
        }
    }

    fn new_extent(&mut self, wanted: &Extent) {
        let object = format!("extent {}", wanted.name);
        let Some(size) = wanted.size else {
            self.fault(&object, "size is missing: a new extent needs one, as \"20GiB\"");
            return;
        };
        let block_size = wanted.block_size.unwrap_or(BLOCK_SIZE);
        self.blocks_of(&object, size, block_size);
        let replicas = wanted
            .replicas
            .as_ref()
            .unwrap_or(&self.present.data_nodes)
            .clone();
        let (full, confirmed_reads) = (wanted.thin == Some(false), wanted.confirmed_reads == Some(true));
        let write_cache = wanted.write_cache == Some(true);
        let on_devices = wanted.on_devices == Some(true);
        if on_devices && wanted.thin == Some(true) {
            self.fault(&object, "thin = true: an extent on devices has all of its space");
        }
        let mut values = vec![
            format!("size {size}"),
            format!("block_size {block_size}"),
            format!("replicas {}", replicas.join("+")),
        ];
        let preferred = wanted.preferred.clone().unwrap_or_default();
        if !preferred.is_empty() {
            values.push(format!("preferred {preferred}"));
        }
        let said = [
            (full, "thin false"),
            (on_devices, "on_devices true"),
            (confirmed_reads, "confirmed_reads true"),
            (write_cache, "write_cache true"),
        ];
        values.extend(
            said.iter()
                .filter(|(is, _)| *is)
                .map(|(_, text)| (*text).to_owned()),
        );
        if wanted.secondary == Some(Secondary::Standby) {
            values.push("secondary standby".to_owned());
        }
        self.tell(Action::Create, &object, values);
        let nobody = preferred == NOBODY;
        let request = CreateExtentRequest {
            name: wanted.name.clone(),
            size_bytes: size.0,
            block_size,
            replicas,
            preferred: if nobody { String::new() } else { preferred },
            confirmed_reads,
            full,
            write_cache,
            on_devices,
        };
        self.step(Phase::Extents, &object, Call::CreateExtent(request));
        if nobody {
            self.set(&object, &wanted.name, Some(NOBODY), None);
        }
        if let Some(secondary @ Secondary::Standby) = wanted.secondary {
            self.set(&object, &wanted.name, None, Some(secondary));
        }
    }

    fn set(&mut self, object: &str, name: &str, preferred: Option<&str>, secondary: Option<Secondary>) {
        let set = SetExtent {
            name: name.to_owned(),
            new_name: String::new(),
            preferred: preferred.unwrap_or_default().to_owned(),
            secondary: secondary
                .map(|secondary| secondary.to_string())
                .unwrap_or_default(),
        };
        self.step(Phase::Extents, object, Call::Change(OneChange::SetExtent(set)));
    }

    /// What is decided when an extent is made.
    fn fixed(&mut self, object: &str, now: &Extent, wanted: &Extent) {
        if let (Some(now), Some(wanted)) = (now.block_size, wanted.block_size)
            && now != wanted
        {
            self.fault(
                object,
                format!("block_size = {wanted}: it has {now}, which never changes"),
            );
        }
        let on_devices = now.on_devices.unwrap_or(false);
        for (key, now, wanted) in [
            ("thin", now.thin, wanted.thin),
            ("on_devices", Some(on_devices), wanted.on_devices),
        ] {
            if let (Some(now), Some(wanted)) = (now, wanted)
                && now != wanted
            {
                self.fault(
                    object,
                    format!("{key} = {wanted}: it was made with {now}, which never changes"),
                );
            }
        }
        if let (Some(now), Some(wanted)) = (now.size, wanted.size)
            && wanted < now
        {
            self.fault(
                object,
                format!("size = {wanted}: it has {now}, and an extent only grows"),
            );
        }
    }

    fn changed_extent(&mut self, now: &Extent, wanted: &Extent) {
        let object = format!("extent {}", wanted.name);
        let name = || wanted.name.clone();
        self.fixed(&object, now, wanted);
        let mut values = Vec::new();
        if let Some(size) = differs(&mut values, "size", now.size.as_ref(), wanted.size.as_ref()) {
            self.blocks_of(&object, size, now.block_size.unwrap_or(BLOCK_SIZE));
            let (name, size_bytes) = (name(), size.0);
            let change = OneChange::ResizeExtent(ResizeExtent { name, size_bytes });
            self.step(Phase::Extents, &object, Call::Change(change));
        }
        // A preferred node goes with its replica.
        let mut preferred = now.preferred.clone();
        if let (Some(now), Some(nodes)) = (&now.replicas, &wanted.replicas)
            && now != nodes
        {
            values.push(format!("replicas {}", arrow(now.join("+"), nodes.join("+"))));
            let kept = preferred.filter(|node| nodes.contains(node));
            preferred = Some(kept.unwrap_or_else(|| NOBODY.to_owned()));
            let (name, nodes) = (name(), nodes.clone());
            let change = OneChange::SetReplicas(SetReplicas { name, nodes });
            self.step(Phase::Extents, &object, Call::Change(change));
        }
        let goes = wanted.preferred.as_ref().or(preferred.as_ref());
        differs(&mut values, "preferred", now.preferred.as_ref(), goes);
        if let Some(node) = wanted
            .preferred
            .as_ref()
            .filter(|node| Some(*node) != preferred.as_ref())
        {
            self.set(&object, &wanted.name, Some(node), None);
        }
        if let Some(secondary) = differs(
            &mut values,
            "secondary",
            now.secondary.as_ref(),
            wanted.secondary.as_ref(),
        ) {
            self.set(&object, &wanted.name, None, Some(secondary));
        }
        let confirmed = (now.confirmed_reads.as_ref(), wanted.confirmed_reads.as_ref());
        if let Some(on) = differs(&mut values, "confirmed_reads", confirmed.0, confirmed.1) {
            let request = SetConfirmedReadsRequest { extent: name(), on };
            self.step(Phase::Extents, &object, Call::ConfirmedReads(request));
        }
        if let Some(on) = differs(
            &mut values,
            "write_cache",
            now.write_cache.as_ref(),
            wanted.write_cache.as_ref(),
        ) {
            let (extent, lost) = (name(), false);
            let request = SetWriteCacheRequest { extent, on, lost };
            self.step(Phase::Extents, &object, Call::WriteCache(request));
        }
        if !values.is_empty() {
            self.tell(Action::Change, &object, values);
        }
    }
}

//! The addresses of the nodes: the topology's, corrected by what nodes have announced since.
//!
//! The topology alone is not enough. It learns of a new address through the system shard, which needs a quorum; if the
//! nodes of that quorum are the ones that moved, no node would find another. So a node's own announcement takes effect
//! as soon as it is heard. It is trusted for the address and for nothing else: the worst effect of a wrong one is that
//! a connection fails, or reaches a node that refuses because another one was dialled.
//!
//! The latest information counts, whichever way it came: an announcement, an introduction, or a topology with new
//! addresses of the node. A late message that brings back an old address is corrected by the next announcement. What
//! was heard is kept in memory only.

use crate::system::{Addresses, Member, Members, Topology};
use crate::types::NodeId;
use std::collections::BTreeMap;

pub(super) struct AddressBook {
    node: NodeId,
    own: Addresses,
    /// The addresses of other nodes, where they differ from the topology's.
    heard: BTreeMap<NodeId, Addresses>,
}

impl AddressBook {
    pub fn new(node: NodeId, own: Addresses) -> AddressBook {
        AddressBook { node, own, heard: BTreeMap::new() }
    }

    /// This node's addresses.
    pub fn own(&self) -> &Addresses {
        &self.own
    }

    /// Handles a node's own addresses. Returns whether they are new.
    pub fn hear(&mut self, topology: &Topology, node: NodeId, addresses: Addresses) -> bool {
        let Some(member) = topology.nodes.get(&node).filter(|_| node != self.node) else { return false };
        let is_news = match self.heard.get(&node) {
            Some(heard) => *heard != addresses,
            None => member.addresses() != addresses,
        };
        if addresses == member.addresses() {
            self.heard.remove(&node);
        } else {
            self.heard.insert(node, addresses);
        }
        is_news
    }

    /// Handles a later topology: addresses that it changes override what was heard before.
    pub fn follow(&mut self, before: &Topology, after: &Topology) {
        let addresses = |topology: &Topology, node: &NodeId| topology.nodes.get(node).map(Member::addresses);
        self.heard.retain(|node, _| addresses(after, node).is_some_and(|new| addresses(before, node) == Some(new)));
    }

    /// All nodes, with the addresses to reach them at.
    pub fn members(&self, topology: &Topology) -> Members {
        let current = topology.nodes.iter().map(|(&node, member)| {
            let heard = if node == self.node { Some(&self.own) } else { self.heard.get(&node) };
            (node, heard.map_or_else(|| member.clone(), |heard| member.at(heard.clone())))
        });
        current.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Control, ControlConfig};
    use crate::message::{Announcement, ControlMessage};
    use crate::system::SystemCommand;
    use crate::system::topology::tests::member;
    use crate::time::Moment;
    use crate::timing::Timing;
    use crate::types::{ClusterId, Epoch, Identity};
    use ringfort_ring::ShardCount;
    use std::sync::Arc;
    use std::time::Duration;

    const OTHER: NodeId = NodeId(2);

    fn topology() -> Topology {
        let mut topology =
            Topology::bootstrap(ClusterId(5), ShardCount::new(2).unwrap(), Timing::DEFAULT, member("node1"));
        topology.nodes.insert(OTHER, member("node2"));
        topology
    }

    fn control(own: Member) -> Control {
        Control::new(NodeId(1), Arc::new(topology()), own, ControlConfig::default(), Moment::default())
    }

    fn at(port: u16) -> Addresses {
        Addresses { raft: format!("elsewhere:{port}"), grpc: format!("elsewhere:{}", port + 1) }
    }

    fn announcement(control: &mut Control, from: NodeId, addresses: Addresses) {
        let announcement = Announcement { epoch: Epoch(1), leads: Vec::new(), addresses };
        control.handle_message(Moment::default(), from, ControlMessage::Announcement(announcement));
    }

    /// The address at which to dial the other node, if it has changed.
    fn dialled(control: &mut Control) -> Option<Addresses> {
        control.take_effects().members.map(|members| members[&OTHER].addresses())
    }

    #[test]
    fn a_node_is_dialled_where_its_announcement_says_that_it_is() {
        let mut control = control(member("node1"));
        assert_eq!(dialled(&mut control), Some(member("node2").addresses()), "at first as the topology says");
        announcement(&mut control, OTHER, member("node2").addresses());
        assert_eq!(dialled(&mut control), None);
        for moved in [at(1), at(3), member("node2").addresses()] {
            announcement(&mut control, OTHER, moved.clone());
            assert_eq!(dialled(&mut control), Some(moved.clone()));
            announcement(&mut control, OTHER, moved);
            assert_eq!(dialled(&mut control), None, "no news");
        }
        announcement(&mut control, NodeId(9), at(1));
        assert_eq!(dialled(&mut control), None, "of a node that is no member nothing is believed");
    }

    #[test]
    fn a_later_topology_corrects_what_was_heard_where_it_says_something_new() {
        let mut control = control(member("node1"));
        announcement(&mut control, OTHER, at(1));
        let mut next = topology();
        next.epoch = Epoch(2);
        next.nodes.insert(NodeId(3), member("node3"));
        control.handle_topology(Arc::new(next.clone()));
        assert_eq!(dialled(&mut control), Some(at(1)), "nothing new of this node");
        next.nodes.insert(OTHER, member("node2").at(at(5)));
        next.epoch = Epoch(3);
        control.handle_topology(Arc::new(next));
        assert_eq!(dialled(&mut control), Some(at(5)));
    }

    #[test]
    fn an_introduction_counts_of_the_same_identity_only() {
        let mut control = control(member("node1"));
        dialled(&mut control);
        let moved = member("node2").at(at(1));
        control.handle_introduction(&Member { identity: Identity(1), ..moved.clone() });
        control.handle_introduction(&Member { name: "node3".into(), ..moved.clone() });
        assert_eq!(dialled(&mut control), None);
        control.handle_introduction(&moved);
        assert_eq!(dialled(&mut control), Some(at(1)));
    }

    #[test]
    fn a_node_that_moved_says_so_until_the_topology_does() {
        // Its zone has changed as well: a proposal with the old one would revert the introduction.
        let own = Member { zone: "new".into(), ..member("node1").at(at(7)) };
        let mut control = control(own.clone());
        let mut now = Moment::default();
        let mut asked = |control: &mut Control| {
            now = now + Duration::from_secs(1);
            control.handle_tick(now);
            control.take_effects()
        };
        let told = SystemCommand::Join { member: own.clone(), replaces: None, known_as: Some(NodeId(1)) };
        let effects = asked(&mut control);
        assert_eq!(effects.proposals, std::slice::from_ref(&told));
        assert_eq!(effects.members.unwrap()[&NodeId(1)].addresses(), at(7));
        let is_announcement =
            |message: &ControlMessage| matches!(message, ControlMessage::Announcement(b) if b.addresses == at(7));
        assert!(effects.messages.iter().all(|(_, message)| is_announcement(message)) && !effects.messages.is_empty());
        assert_eq!(asked(&mut control).proposals, [told]);
        let mut next = topology();
        next.epoch = Epoch(2);
        next.nodes.insert(NodeId(1), own);
        control.handle_topology(Arc::new(next));
        assert_eq!(asked(&mut control).proposals, []);
    }
}

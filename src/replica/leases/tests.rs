use quickcheck::quickcheck;

use super::*;

const GRACE: u64 = LEASE_GRACE_MS as u64;
const LATE: u64 = LEASE_LATE_MS as u64;
const LENGTH: u64 = LEASE_MS as u64;

fn document() -> DocumentId {
    DocumentId::from_bytes(&[7; 16])
}

fn who(name: &str) -> SessionInfo {
    SessionInfo { session: name.parse().unwrap(), user: Some(name.to_owned()), device: None }
}

fn over(name: &str) -> ConnectionId {
    ConnectionId(name.bytes().map(u64::from).sum())
}

struct World {
    leases: Leases,
    now_ms: u64,
}

impl World {
    fn start(number: u64) -> Self {
        let mut leases = Leases::default();
        leases.numbered(0, number);
        Self { leases, now_ms: 0 }
    }

    fn ask(&mut self, name: &str, action: LeaseAction, fence: u64) -> (Outcome, LeaseState) {
        let request = LeaseRequest { id: 1, action, for_ms: 0, fence };
        let asker = (over(name), &who(name));
        let mut outcome = self.leases.asked(self.now_ms, &document(), asker, request);
        let answer = outcome.answer.take().unwrap();
        (outcome, answer)
    }

    fn acquire(&mut self, name: &str) -> Result<u64, LeaseRefusal> {
        granted(name, self.ask(name, LeaseAction::Acquire, 0).1)
    }

    fn take_over(&mut self, name: &str) -> Result<u64, LeaseRefusal> {
        granted(name, self.ask(name, LeaseAction::TakeOver, 0).1)
    }

    fn renew(&mut self, name: &str, fence: u64) -> Result<u64, LeaseRefusal> {
        granted(name, self.ask(name, LeaseAction::Renew, fence).1)
    }

    fn later(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        while let Some(document) = self.leases.due(self.now_ms) {
            self.leases.look(self.now_ms, &document);
        }
    }

    fn holder(&self) -> Option<String> {
        let holder = self.leases.state(self.now_ms, &document()).holder?;
        holder.who.user
    }

    fn may_write(&self, name: &str) -> bool {
        let session = who(name).session;
        self.leases.keeps_off(self.now_ms, &document(), Some(&session)).is_none()
    }
}

fn granted(name: &str, answer: LeaseState) -> Result<u64, LeaseRefusal> {
    if let Some(why) = answer.why {
        return Err(why);
    }
    let holder = answer.holder.unwrap();
    assert_eq!(holder.who, who(name));
    Ok(holder.fence)
}

#[test]
fn one_holds_it_until_it_is_given_back_or_time_is_up() {
    let mut world = World::start(1);
    let first = world.acquire("ann").unwrap();
    assert_eq!(world.acquire("ben"), Err(LeaseRefusal::Held));
    assert_eq!(world.acquire("ann"), Ok(first), "asking again is renewing");
    world.later(LENGTH - 1);
    assert_eq!(world.renew("ann", first), Ok(first));
    world.later(LENGTH - 1);
    assert_eq!(world.holder().as_deref(), Some("ann"));
    world.later(1);
    assert_eq!(world.holder(), None);
    let second = world.acquire("ben").unwrap();
    assert!(second > first);
    let (outcome, answer) = world.ask("ben", LeaseAction::Release, second);
    assert!(outcome.changed && answer.holder.is_none());
    assert!(world.acquire("ann").unwrap() > second);
}

#[test]
fn who_loses_it_is_told_and_may_bring_what_was_on_its_way() {
    let mut world = World::start(1);
    let hers = world.acquire("ann").unwrap();
    assert!(world.may_write("ann") && !world.may_write("ben"));
    let (outcome, _) = world.ask("ben", LeaseAction::TakeOver, 0);
    assert_eq!((outcome.changed, outcome.lost), (true, Some(over("ann"))));
    assert!(world.may_write("ben") && world.may_write("ann") && !world.may_write("carl"));
    world.ask("ann", LeaseAction::Release, hers);
    assert_eq!(world.holder().as_deref(), Some("ben"), "what she gives back is not hers any more");
    assert!(world.may_write("ben") && !world.may_write("ann"));
    world.take_over("carl").unwrap();
    world.later(LATE.min(LENGTH - 1));
    assert!(world.may_write("ben"));
    world.renew("carl", 0).unwrap();
    world.later(LENGTH - 1);
    world.renew("carl", 0).unwrap();
    world.later(LENGTH - 1);
    assert!(!world.may_write("ben"), "not for ever");
}

#[test]
fn a_session_comes_back_over_another_connection() {
    let mut world = World::start(1);
    let hers = world.acquire("ann").unwrap();
    world.leases.disconnected(world.now_ms, over("ann"));
    world.later(GRACE - 1);
    assert_eq!(world.acquire("ben"), Err(LeaseRefusal::Held));
    let request = LeaseRequest { id: 2, action: LeaseAction::Renew, for_ms: 0, fence: hers };
    let other = (ConnectionId(9_999), &who("ann"));
    world.leases.asked(world.now_ms, &document(), other, request);
    // The end of the old one, which is found out later, is of no consequence.
    world.leases.disconnected(world.now_ms, over("ann"));
    world.later(GRACE);
    assert_eq!(world.holder().as_deref(), Some("ann"));
    world.leases.disconnected(world.now_ms, ConnectionId(9_999));
    world.later(GRACE);
    assert_eq!(world.holder(), None);
    world.later(LATE);
    assert!(world.leases.documents.is_empty() && world.leases.over.is_empty());
    assert!(world.leases.timers.is_empty());
}

#[test]
fn after_a_start_only_who_held_it_before_gets_it_for_a_while() {
    let mut before = World::start(1);
    let hers = before.acquire("ann").unwrap();
    let his = before.take_over("ben").unwrap();
    let mut world = World::start(2);
    assert_eq!(world.acquire("carl"), Err(LeaseRefusal::Settling));
    assert_eq!(world.take_over("carl"), Err(LeaseRefusal::Settling));
    assert_eq!(world.renew("carl", 0), Err(LeaseRefusal::Settling));
    assert_eq!(world.renew("carl", 2 << 32), Err(LeaseRefusal::Settling), "no such fence yet");
    let again = world.renew("ann", hers).unwrap();
    let (outcome, answer) = world.ask("ben", LeaseAction::Renew, his);
    assert_eq!(outcome.lost, Some(over("ann")), "the later of the two");
    let latest = answer.holder.unwrap().fence;
    assert!(hers < his && his < again && again < latest);
    assert_eq!(world.renew("ann", hers), Err(LeaseRefusal::Held));
    world.later(GRACE);
    assert_eq!(world.renew("carl", u64::MAX), Err(LeaseRefusal::Held));

    let mut unnumbered = World { leases: Leases::default(), now_ms: 1_000_000 };
    assert_eq!(unnumbered.acquire("ann"), Err(LeaseRefusal::Settling));
}

#[test]
fn a_connection_holds_so_many_and_no_more() {
    let mut world = World::start(1);
    let acquire = |world: &mut World, n: usize| {
        let document = DocumentId::from_bytes(&n.to_be_bytes());
        let action = LeaseAction::Acquire;
        let request = LeaseRequest { id: 1, action, for_ms: u32::MAX, fence: 0 };
        let asker = (over("ann"), &who("ann"));
        world.leases.asked(world.now_ms, &document, asker, request).answer.unwrap().why
    };
    for n in 0..LEASES_PER_CONNECTION_MAX {
        assert_eq!(acquire(&mut world, n), None);
    }
    assert_eq!(acquire(&mut world, LEASES_PER_CONNECTION_MAX), Some(LeaseRefusal::Limit));
    assert_eq!(acquire(&mut world, 0), None, "what it holds it goes on holding");
    world.later(LEASE_MS_MAX.into());
    assert_eq!(acquire(&mut world, LEASES_PER_CONNECTION_MAX), None);
}

quickcheck! {
    /// Whatever is asked, when: a grant to somebody is above all before it, and whoever was told
    /// that they hold it does so until they gave it back, it was taken over, or their time is up.
    fn fences_go_up_and_grants_hold(steps: Vec<(u8, u8, u16)>) -> bool {
        let names = ["ann", "ben", "carl"];
        let mut number = 1;
        let mut world = World::start(number);
        let (mut highest, mut held): (u64, Option<(&str, u64)>) = (0, None);
        for (name, action, wait) in steps {
            world.later(u64::from(wait) % 20_000);
            let name = names[usize::from(name) % names.len()];
            let fence = highest.saturating_sub(u64::from(wait % 2));
            let action = match action % 7 {
                0 | 1 => LeaseAction::Acquire,
                2 => LeaseAction::Renew,
                3 => LeaseAction::TakeOver,
                4 => LeaseAction::Release,
                5 => LeaseAction::Show,
                _ => {
                    number += 1;
                    world = World::start(number);
                    held = None;
                    continue;
                }
            };
            let (_, answer) = world.ask(name, action, fence);
            let Some(holder) = answer.holder else {
                held = None;
                continue;
            };
            let is_new = holder.fence > highest;
            let until_ms = world.now_ms + u64::from(holder.left_ms);
            let holder_name = holder.who.user.as_deref().unwrap_or_default();
            let is_stolen = held.is_some_and(|(before, until_ms)| {
                before != holder_name && until_ms > world.now_ms && action != LeaseAction::TakeOver
            });
            // A second one that comes back after a start is the later holder.
            let is_back = action == LeaseAction::Renew && world.now_ms < GRACE;
            if holder.fence < highest || is_stolen && !is_back || is_new && holder_name != name {
                return false;
            }
            highest = highest.max(holder.fence);
            let holder_name = names.into_iter().find(|name| *name == holder_name);
            held = holder_name.map(|name| (name, until_ms));
        }
        true
    }
}

use std::fmt::Write as _;

use futures_util::FutureExt as _;

use super::*;

/// The text of a schema in which types have versions, and a word in which it differs.
fn text(versions: &[(&str, u32)], word: &str) -> String {
    let mut text = String::new();
    for (name, version) in versions {
        let _ = write!(
            text,
            "[types.{name}]\nversion = {version}\n[types.{name}.fields]\n{word} = \"string\"\n"
        );
        for n in 2..=*version {
            let _ = writeln!(text, "f{n} = \"string\"");
        }
        for n in 2..=*version {
            let _ = writeln!(text, "[[types.{name}.migrations]]\nversion = {n}\nadd = \"f{n}\"");
        }
    }
    text
}

struct Disk {
    schemas: Arc<Schemas>,
    keeper: Keeper,
    row: Option<Bytes>,
}

impl Disk {
    fn start(own: Option<Arc<Schema>>, row: Option<Bytes>) -> Self {
        let schemas = Arc::new(Schemas::new(own));
        let mut this = Self { keeper: Keeper::new(Arc::clone(&schemas)), schemas, row };
        let unread = this.keeper.recalled(Ok(this.row.clone()));
        this.look(unread);
        assert!(*this.schemas.known.borrow());
        this
    }

    fn restart(self) -> Self {
        Self::start(None, self.row)
    }

    fn look(&mut self, mut unread: Option<Unread>) {
        while let Some(next) = unread {
            let (row, more) = self.keeper.judged(next.judge());
            if row.is_some() {
                self.row = row;
            }
            unread = more;
        }
    }

    fn connect(&mut self, id: u64, store: &str) {
        self.keeper.connected(ConnectionId(id), Some(store.parse().unwrap()));
    }

    fn tell(&mut self, id: u64, text: &str) {
        let unread = self.keeper.told(ConnectionId(id), SchemaHash::of(text), text.to_owned());
        self.look(unread);
    }

    fn kept(&self) -> Option<String> {
        self.schemas.status.borrow().kept.as_ref().map(|kept| kept.text.as_ref().to_owned())
    }

    fn problem(&self) -> Option<String> {
        self.schemas.status.borrow().problem.clone()
    }
}

#[test]
fn what_a_relay_told_is_in_force_after_a_restart_without_it() {
    let mut disk = Disk::start(None, None);
    assert_eq!((disk.kept(), disk.schemas.in_force()), (None, None));
    disk.connect(1, "a");
    let first = text(&[("task", 1)], "title");
    disk.tell(1, &first);
    let disk = disk.restart();
    assert_eq!(disk.kept(), Some(first));
    assert!(disk.schemas.in_force().unwrap().types.contains_key("task"));
    let held = disk.schemas.held().now_or_never();
    assert_eq!(held, Some(disk.kept().map(|text| SchemaHash::of(&text))));
}

#[test]
fn what_cannot_be_used_is_said_and_changes_nothing() {
    let mut disk = Disk::start(None, None);
    disk.connect(1, "a");
    let good = text(&[("task", 1)], "title");
    disk.tell(1, &good);
    let row = disk.row.clone();
    disk.tell(1, "[types.task.fields]\ntitle = \"txet\"");
    assert!(disk.problem().unwrap().contains("txet"), "{:?}", disk.problem());
    assert_eq!((disk.kept(), &disk.row), (Some(good.clone()), &row));
    disk.tell(1, &good);
    assert_eq!(disk.problem(), None);
    let unread = disk.keeper.told(ConnectionId(1), SchemaHash::of("another"), good.clone());
    disk.look(unread);
    assert!(disk.problem().unwrap().contains("hash"));
    disk.keeper.disconnected(ConnectionId(1));
    assert_eq!((disk.problem(), disk.kept()), (None, Some(good)));
}

#[test]
fn the_program_s_own_schema_is_in_force_and_the_relay_s_is_kept() {
    let own = Arc::new(Schema::parse(&text(&[("note", 1)], "body")).unwrap());
    let mut disk = Disk::start(Some(Arc::clone(&own)), None);
    disk.connect(1, "a");
    disk.tell(1, &text(&[("task", 1)], "title"));
    assert_eq!(disk.schemas.in_force(), Some(own));
    let disk = disk.restart();
    assert!(disk.schemas.in_force().unwrap().types.contains_key("task"));
}

#[test]
fn relays_with_different_schemas_do_not_take_turns() {
    let (old, new) = (text(&[("task", 1)], "title"), text(&[("task", 2)], "title"));
    let other = text(&[("task", 2)], "name");
    let mut disk = Disk::start(None, None);
    disk.connect(1, "a");
    disk.connect(2, "b");
    disk.tell(1, &old);
    disk.tell(2, &new);
    assert_eq!(disk.kept(), Some(new.clone()), "newer");
    disk.tell(1, &old);
    assert_eq!(disk.kept(), Some(new.clone()), "older");
    disk.tell(1, &other);
    assert_eq!(disk.kept(), Some(new.clone()), "as new, of another relay");
    disk.tell(2, &other);
    assert_eq!(disk.kept(), Some(other.clone()), "as new, of the relay that told");
    disk.tell(2, &old);
    assert_eq!(disk.kept(), Some(old.clone()), "the relay that told went back");

    // One that is never seen again does not hold it for ever; but nobody else makes it older.
    disk.tell(2, &new);
    let mut disk = disk.restart();
    disk.connect(3, "a");
    disk.tell(3, &old);
    assert_eq!(disk.kept(), Some(new.clone()));
    disk.tell(3, &other);
    assert_eq!(disk.kept(), Some(other.clone()));
    disk.connect(4, "b");
    disk.tell(4, &new);
    assert_eq!(disk.kept(), Some(other));
}

#[test]
fn what_is_told_before_the_disk_has_answered_waits_for_it() {
    let mut before = Disk::start(None, None);
    before.connect(1, "a");
    before.tell(1, &text(&[("task", 2)], "title"));
    let schemas = Arc::new(Schemas::new(None));
    let mut keeper = Keeper::new(Arc::clone(&schemas));
    keeper.connected(ConnectionId(1), Some("b".parse().unwrap()));
    let old = text(&[("task", 1)], "title");
    assert!(keeper.told(ConnectionId(1), SchemaHash::of(&old), old).is_none());
    let unread = keeper.recalled(Ok(before.row.clone()));
    let mut disk = Disk { schemas, keeper, row: before.row.clone() };
    disk.look(unread);
    assert_eq!(disk.kept(), before.kept(), "the older one was looked at after the newer");
}

#[test]
fn a_row_that_cannot_be_read_is_as_if_there_were_none() {
    let damaged = StorageFailure::Damaged("a bit flipped".to_owned());
    for row in [Err(damaged), Ok(Some(Bytes::from_static(b"\x01nonsense"))), Ok(Some(Bytes::new()))]
    {
        let schemas = Arc::new(Schemas::new(None));
        let mut keeper = Keeper::new(Arc::clone(&schemas));
        assert!(keeper.recalled(row).is_none());
        assert!(*schemas.known.borrow() && schemas.in_force().is_none());
    }
    let row = record::encode(&Row { text: "nonsense".to_owned(), teller: None }).unwrap();
    let disk = Disk::start(None, Some(row.into()));
    assert_eq!(disk.kept(), None);
}

#[test]
fn the_row_is_what_it_was_in_the_first_version() {
    let row = Row { text: "ab".to_owned(), teller: Some("c".to_owned()) };
    let bytes = [&[1, 2, 0, 0, 0, 0, 0, 0, 0][..], b"ab", &[1, 1, 0, 0, 0, 0, 0, 0, 0], b"c"];
    assert_eq!(record::encode(&row), Ok(bytes.concat()));
    assert_eq!(record::decode(&bytes.concat()), Ok(row));
}

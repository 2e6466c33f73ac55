use super::{
    TOP_KEYS,
    entity_type::TYPE_KEYS,
    field::FIELD_KEYS,
    kind::{KIND_KEYS, ONLY_FOR},
    migration::MIGRATION_KEYS,
};
use crate::entity::{Kind, OnDelete, Policy, Schema, Step};

const EXAMPLE: &str = include_str!("../../../schema/example.toml");

fn errors(text: &str) -> Vec<String> {
    Schema::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

quickcheck::quickcheck! {
    /// Whatever is typed, it is a schema or has errors; nothing panics.
    fn any_file_is_read_or_refused(edits: Vec<(u16, u8)>) -> bool {
        let parts = ["\"", "'", "[", "]", "{", "}", "=", "\n", "#", ".", "1", "-", "inf", "nan", "é",
            "\u{0}", "kind", "0x7f", "1979-05-27", "\"\"\"", "version = 9", ","];
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, edit) in edits {
            let at = usize::from(at) % text.len();
            match parts.get(usize::from(edit) % (parts.len() + 4)) {
                Some(part) => drop(text.splice(at..at, part.chars())),
                None => drop(text.drain(at..(at + usize::from(edit) % 30).min(text.len()))),
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = Schema::parse(&text) {
            assert!(errors.iter().all(|it| it.line >= 1 && it.column >= 1 && !it.fix.is_empty()));
        }
        true
    }
}

#[test]
fn the_example_is_read() {
    let schema = Schema::parse(EXAMPLE).unwrap();
    let task = &schema.types["task"];
    assert_eq!(task.version, 3);
    assert_eq!(task.purge_deleted_after.map(|it| it.to_string()).as_deref(), Some("90d"));
    assert_eq!(schema.types["person"].purge_deleted_after, None, "nothing is purged by default");
    assert_eq!(task.fields["summary"].slot, "title", "what is renamed stays where it is");
    assert_eq!((task.fields["labels"].since, task.fields["labels"].slot.as_str()), (2, "labels"));
    let effort = &task.fields["effort"];
    assert_eq!((effort.slot.as_str(), effort.since), ("effort@3", 3), "no integer can be 2.5");
    assert!(matches!(&task.fields["status"].policy, Policy::Ladder(order) if order.len() == 3));
    let Kind::Reference { to, on_delete, .. } = &task.fields["project"].kind else { panic!() };
    assert_eq!((to.as_str(), *on_delete), ("project", OnDelete::Restrict));
    assert!(matches!(task.migrations[0].step, Step::Add { .. }));
    let gone: Vec<_> = task.gone.iter().map(|field| field.slot.as_str()).collect();
    assert_eq!(gone, ["effort", "notes"]);
    let kinds: std::collections::BTreeSet<_> =
        schema.types.values().flat_map(|it| it.fields.values()).map(|it| it.kind.name()).collect();
    assert_eq!(kinds.len(), Kind::NAMES.len(), "every kind is shown: {kinds:?}");
}

#[test]
fn every_error_is_reported_with_its_line_and_what_to_do() {
    let text = r#"
root_kye = "kind"
[types.task]
version = 2
unique = ["statsu", ["notes"]]
invariants = { enough = "coutn >= 0" }
priority = "urgent"
purge_deleted_after = "soon"

[types.task.fields]
notes = "text"
size = "strin"
status = { kind = "enum", values = ["todo", "doing", "done"], policy = "ladder" }
count = { kind = "integer", min = 3, max = 1, default = "no" }
owner = { kind = "reference", to = "preson" }
tags = { kind = "set" }
title = { kind = "text", policy = "latest", values = ["a"] }
"two words" = "text"
place = { kind = "map" }
code = { kind = "string", pattern = "(", required = 1 }

[[types.task.migrations]]
version = 3
add = "notes"

[types.person]
"#;
    let expected = [
        "line 2: the file has no key `root_kye`: did you mean `root_key`?",
        "line 5: `unique` of type `task` names `statsu`, which is no field: did you mean `status`?",
        "line 5: `unique` of type `task` names `notes`, of kind `text`: name fields that are a \
         string, enum, integer, boolean, timestamp or reference",
        "line 6: rule `enough` of type `task` is no rule on its fields: `coutn` is no field: did you \
         mean `count`?",
        "line 7: `priority` of type `task` is \"urgent\", which is not known: known are `low`, \
         `normal`, `high`",
        "line 8: `purge_deleted_after` of type `task` is \"soon\", no such time: write a number and a \
         unit: 90d; s, m (minutes), h, d or w, up to 100 years",
        "line 12: field `size` of type `task` has the kind \"strin\", which is not known: did you \
         mean `string`?",
        "line 13: field `status` of type `task` has policy `ladder` without an order: add `ladder \
         = [\"todo\", \"doing\", \"done\"]`",
        "line 14: `min` of field `count` of type `task` is 3, above `max`, 1: nothing would fit: \
         change one of them",
        "line 14: the default of field `count` of type `task` is a string, and the kind \
         `integer`: write a default that fits the kind",
        "line 15: field `owner` of type `task` refers to type `preson`, which is not declared: \
         did you mean `person`?",
        "line 16: field `tags` of type `task` does not say what is in it: add `items = \
         \"string\"` or another kind",
        "line 17: field `title` of type `task` has the policy `latest`, and is of kind `text`: \
         leave `policy` out: the kind merges by itself",
        "line 17: `values` says nothing of field `title` of type `task`, which is of kind `text`: \
         leave it out; it is for `enum`",
        "line 18: field `two words` of type `task` has a name that rules and programs cannot use: \
         begin with a letter, go on with letters, digits and _, 64 at most",
        "line 19: field `place` of type `task` does not say what is in it: add `fields` with the \
         fields that it has, or `items` with the kind of whatever is in it",
        "line 20: `pattern` of field `code` of type `task` cannot be used: unclosed group: write \
         another regular expression",
        "line 20: `required` of field `code` of type `task` has a whole number: write true or \
         false",
        "line 23: a migration of type `task` leads to version 3, and the type has 2: raise \
         `version` of the type, or write one from 2 to 2",
        "line 26: type `person` has no fields: add `[types.person.fields]` with at least one",
    ];
    let found = errors(text);
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn roles_are_somebody_s_and_known() {
    let text = r#"
[roles]
owner = ["ann@example.org", "é*x"]
nobody = []
[types.task.fields]
state = { kind = "string", policy = "role", roles = ["ownr", "owner", "guest"] }
other = { kind = "string", policy = "role", roles = ["owner"] }
"#;
    let expected = [
        "line 3: role `owner` is of \"é*x\", which is the name of nobody: write names of authors, \
         as in \"ann@example.org\" or \"*@example.org\"",
        "line 4: `nobody` of `roles` is empty: name at least one",
        "line 6: field `state` of type `task` names the role \"guest\", which nobody has: say who \
         has it at the top: `[roles]`, `guest = [\"ann@example.org\"]`",
        "line 6: field `state` of type `task` names the role \"ownr\", which nobody has: did you \
         mean `owner`?",
    ];
    assert_eq!(errors(text), expected);
}

#[test]
fn one_mistake_is_one_error() {
    let found = errors(
        "[types.a]\nunique = ['due']\ninvariants = { late = 'due > 3', low = 'n = 3' }\n\
         [types.a.fields]\ndue = 'datetime'\nn = 'integer'\n",
    );
    assert_eq!(
        found,
        [
            "line 3: rule `low` of type `a` is no rule on its fields: it cannot be read at \
             character 3: unknown '= ': compare with `==`",
            "line 5: field `due` of type `a` has the kind \"datetime\", which is not known: did you \
             mean `timestamp`?",
        ]
    );
}

#[test]
fn what_cannot_lead_back_is_not_acyclic() {
    let found = errors(
        "[types.a.fields]\nup = { kind = 'reference', to = 'a', acyclic = true }\n\
         to = { kind = 'reference', to = 'b', acyclic = true }\n\
         some = { kind = 'set', items = { kind = 'reference', to = 'a', acyclic = true } }\n\
         [types.b.fields]\nn = 'integer'\n",
    );
    assert_eq!(
        found,
        [
            "line 3: field `to` of type `a` is `acyclic`, and no way back could lead over it: leave \
             it out; it is for fields of `a` that refer to one",
            "line 4: `items` of field `some` of type `a` is `acyclic`, and no way back could lead \
             over it: leave it out; it is for fields of `a` that refer to one",
        ]
    );
}

#[test]
fn what_is_not_toml_is_reported_all_at_once() {
    let found = errors("[types\na = = 1\nb = 1\nc = 'x\n");
    assert!(found.len() >= 3, "{found:#?}");
    assert!(found.iter().all(|error| error.contains("not TOML")), "{found:#?}");
}

#[test]
fn migrations_say_where_fields_are_kept() {
    let schema = Schema::parse(
        r#"
[types.person]
version = 4
[types.person.fields]
first = "string"
last = "string"
bio = "text"
score = "integer"
state = { kind = "enum", values = ["a", "b"] }
address = { kind = "map", fields = { street = "string", notes = "text" } }

[[types.person.migrations]]
version = 2
rename = "about"
to = "story"
[[types.person.migrations]]
version = 2
add = "address.notes"
[[types.person.migrations]]
version = 3
split = "name"
into = ["first", "last"]
[[types.person.migrations]]
version = 3
rename = "story"
to = "bio"
[[types.person.migrations]]
version = 4
retype = "score"
kind = "text"
[[types.person.migrations]]
version = 4
retype = "state"
kind = "string"
"#,
    )
    .unwrap();
    let person = &schema.types["person"];
    let kept = |name: &str| (person.fields[name].slot.as_str(), person.fields[name].since);
    assert_eq!(kept("bio"), ("about", 1));
    assert_eq!((kept("first"), kept("last")), (("first", 3), ("last", 3)));
    assert_eq!(kept("score"), ("score@4", 4), "a number cannot be where a text was");
    assert_eq!(kept("state"), ("state", 1), "each value of an enum is a string");
    let gone: Vec<_> = person.gone.iter().map(|field| (field.slot.as_str(), field.since)).collect();
    assert_eq!(gone, [("name", 1), ("score", 1)]);
    let Kind::Record { fields } = &person.fields["address"].kind else { panic!() };
    assert_eq!((fields["street"].since, fields["notes"].since), (1, 2));
}

#[test]
fn migrations_that_cannot_have_been_are_errors() {
    let found = errors(
        r#"
[types.a]
version = 3
fields = { title = "string", body = "text" }
migrations = [
  { version = 2, add = "tilte" },
  { version = 2, remove = "body", kind = "text" },
  { version = 3, rename = "title", to = "body" },
  { version = 3, remove = "x" },
  { version = 3, add = "a", rename = "b" },
  { version = 3 },
]
"#,
    );
    let has = |part: &str| assert!(found.iter().any(|it| it.contains(part)), "{part} {found:#?}");
    has("line 6: a migration of type `a` (add tilte) names `tilte`, which version 2 does not have");
    has("(rename title to body) takes away `title`, which version 3 still has");
    has("line 9: a migration of type `a` has no `kind`");
    has("line 10: a migration of type `a` does several things: `add`, `rename`");
    has("line 11: a migration of type `a` does not say what it does");
}

#[test]
fn migrations_that_nothing_is_known_to_do_are_errors() {
    let found = errors(
        r#"
[types.a]
version = 2
[types.a.fields]
count = "integer"
due = "timestamp"
tags = { kind = "list", items = "integer" }
place = { kind = "map", fields = { x = "number" } }
first = "string"
last = "integer"
all = "text"
[[types.a.migrations]]
version = 2
retype = "count"
kind = "counter"
[[types.a.migrations]]
version = 2
retype = "due"
kind = "boolean"
[[types.a.migrations]]
version = 2
retype = "tags"
kind = { kind = "list", items = "string" }
[[types.a.migrations]]
version = 2
retype = "place"
kind = { kind = "map", fields = { y = "number" } }
[[types.a.migrations]]
version = 2
split = "name"
into = ["first", "last"]
[[types.a.migrations]]
version = 2
merge = ["one", "other"]
into = "all"
separator = ""
"#,
    );
    let expected = [
        "line 12: a migration of type `a` (retype count from counter) makes integer of counter, and \
         there is no way between them: keep `count` as it is, or `remove` it and add one of another \
         name",
        "line 16: a migration of type `a` (retype due from boolean) makes timestamp of boolean, and \
         there is no way between them: keep `due` as it is, or `remove` it and add one of another \
         name",
        "line 20: a migration of type `a` (retype tags from list) makes list of integer of list of \
         string, and there is no way between them: keep `tags` as it is, or `remove` it and add one \
         of another name",
        "line 24: a migration of type `a` (retype place from map) makes map { x } of map { y }, and \
         there is no way between them: leave it out: `add` says what came into a map",
        "line 28: a migration of type `a` (split name into first, last) makes `last`, which is no \
         string or text: make it a string, and `retype` that in a migration after this one",
        "line 32: a migration of type `a` (merge one, other into all) has an empty separator, at \
         which nothing can be cut again: write what stands between, or leave `separator` out for a \
         space",
    ];
    assert_eq!(found, expected);
}

#[test]
fn bounds_hold_also_for_files_of_others() {
    let deep = format!(
        "[types.a.fields]\na = {}\"text\"{}",
        "{ kind = 'list', items = ".repeat(12),
        " }".repeat(12)
    );
    assert!(errors(&deep)[0].contains("levels deep"), "{:?}", errors(&deep));
    let deeper = format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(errors(&deeper)[0].contains("not TOML"));
    for text in [
        "a.".repeat(400_000) + "a = 1",
        format!("[{}a]\na = 1", "a.".repeat(400_000)),
        format!("a = {{ {}a = 1 }}", "a.".repeat(400_000)),
    ] {
        assert!(errors(&text)[0].contains("not TOML: recursion limit"), "{}", errors(&text)[0]);
    }
    let values =
        format!("[types.a.fields]\na = {{ kind = 'enum', values = [{}] }}", "'x',".repeat(200_000));
    assert!(errors(&values).iter().any(|it| it.contains("200000 values")), "{:?}", errors(&values));
    let rules: String =
        (0..1_100).map(|number| format!("r{number} = 'a > 1'")).collect::<Vec<_>>().join("\n");
    let rules = format!("[types.a]\nfields = {{ a = 'integer' }}\n[types.a.invariants]\n{rules}");
    assert!(errors(&rules)[0].contains("rule or pattern 1001"), "{:?}", errors(&rules));
    let many = (0..5_000).map(|number| format!("x{number} = 1")).collect::<Vec<_>>().join("\n");
    assert_eq!(errors(&many).len(), crate::entity::limits::ERRORS_MAX);
    assert!(errors(&"#".repeat(2 << 20))[0].contains("bytes"));
}

/// What an editor is told is what is read.
#[test]
fn the_json_schema_knows_the_same_keys_and_words() {
    let json: serde_json::Value =
        serde_json::from_str(include_str!("../../../schema/concord-schema.json")).unwrap();
    let keys = |pointer: &str| -> Vec<String> {
        let properties = json.pointer(pointer).and_then(|it| it.as_object()).unwrap();
        properties.keys().cloned().collect()
    };
    let sorted = |keys: &[&str]| {
        let mut keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys("/properties"), sorted(&TOP_KEYS));
    assert_eq!(keys("/$defs/type/properties"), sorted(&TYPE_KEYS));
    assert_eq!(keys("/$defs/kind_table/properties"), sorted(&KIND_KEYS));
    let all: Vec<_> = KIND_KEYS.into_iter().chain(FIELD_KEYS).collect();
    assert_eq!(keys("/$defs/field_table/properties"), sorted(&all));
    assert_eq!(keys("/$defs/migration/properties"), sorted(&MIGRATION_KEYS));
    let words = |pointer: &str| -> Vec<String> {
        serde_json::from_value(json.pointer(pointer).unwrap().clone()).unwrap()
    };
    assert_eq!(words("/$defs/kind_name/enum"), Kind::NAMES);
    assert_eq!(words("/$defs/field_table/properties/policy/enum"), Policy::NAMES);
    assert_eq!(words("/$defs/kind_table/properties/on_delete/enum"), OnDelete::NAMES);
    assert!(ONLY_FOR.iter().all(|(key, _)| KIND_KEYS.contains(key)));
}

#[test]
fn the_json_schema_takes_the_example_and_refuses_what_is_mistyped() {
    let json = serde_json::from_str(include_str!("../../../schema/concord-schema.json")).unwrap();
    let validator = jsonschema::validator_for(&json).unwrap();
    let example: toml::Value = toml::from_str(EXAMPLE).unwrap();
    let example = serde_json::to_value(example).unwrap();
    let errors: Vec<_> = validator.iter_errors(&example).map(|it| it.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    for wrong in [
        r#"{ "root_kye": "a", "types": {} }"#,
        r#"{ "types": { "a": { "fields": { "b": "strin" } } } }"#,
        r#"{ "types": { "a": { "fields": { "b": { "kind": "text", "polcy": "max" } } } } }"#,
        r#"{ "types": { "a": { "version": 0, "fields": { "b": "text" } } } }"#,
    ] {
        let value = serde_json::from_str(wrong).unwrap();
        assert!(!validator.is_valid(&value), "{wrong}");
    }
}

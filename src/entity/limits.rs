//! What a schema may be at most, each with its reason.

/// Bytes of a schema file. The largest that people wrote for comparable systems have some 100 KiB;
/// a peer reads the file of a relay, so there is an end to it.
pub const FILE_BYTES_MAX: usize = concord_protocol::limits::SCHEMA_BYTES_MAX;
/// Types of a schema.
pub const TYPES_MAX: usize = 1_000;
/// Fields of a type, or of a map.
pub const FIELDS_MAX: usize = 1_000;
/// Levels of kinds within kinds: a list of maps of lists has three.
pub const KIND_DEPTH_MAX: usize = 8;
/// Bytes of the name of a type, field or rule.
pub const NAME_BYTES_MAX: usize = 64;
/// The highest version of a type: each is one genesis change at most.
pub const VERSION_MAX: u32 = 1_000;
/// Rules and patterns of a schema: each takes a millisecond to read.
pub const RULES_MAX: usize = 1_000;
/// Values of an enum, roles, keys that are unique.
pub const VALUES_MAX: usize = 1_000;
/// Migrations of a type.
pub const MIGRATIONS_MAX: usize = 1_000;
/// Bytes of a rule.
pub const RULE_BYTES_MAX: usize = 1_024;
/// Brackets within each other in a rule: the parser takes 256 KiB of stack for 16 of them, and
/// 4 MiB in a build that is not optimised.
pub const RULE_BRACKETS_MAX: usize = 8;
/// Levels of the parser: brackets and choices within each other.
pub const RULE_DEPTH_MAX: u16 = 32;
/// Elements of a list that a rule looks at. With its length that bounds the time that it takes.
pub const RULE_ITEMS_MAX: usize = 100_000;
/// Bytes of a compiled pattern, as the regex crate counts.
pub const PATTERN_BYTES_MAX: usize = 1 << 18;
/// Errors that are reported at once: who has more has another kind of file.
pub const ERRORS_MAX: usize = 100;

/// Levels of a value of kind `json` that are read and written.
pub const JSON_DEPTH_MAX: usize = 64;

const _: () = assert!(KIND_DEPTH_MAX < 128, "what reads kinds does so by recursion");

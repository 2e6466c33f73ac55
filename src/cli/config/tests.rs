use std::io;

use super::{find::SERVE_KEYS, *};

fn resolve(
    args: &ServeArgs,
    env: &[(&str, &str)],
    file: Option<&str>,
) -> Result<ServeConfig, ConfigError> {
    let env = |name: &str| {
        let found = env.iter().find(|(there, _)| *there == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let read = |_: &str| file.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into());
    ServeConfig::resolve(args, &env, &read)
}

fn port(args: &ServeArgs, env: &[(&str, &str)], file: Option<&str>) -> u16 {
    resolve(args, env, file).unwrap().relay.port
}

#[test]
fn a_flag_beats_our_variable_beats_the_older_one_beats_the_file_beats_the_default() {
    let flag = ServeArgs { port: Some(1), ..ServeArgs::default() };
    let none = ServeArgs::default();
    let all = [("CONCORD_PORT", "2"), ("PORT", "3")];
    let file = Some("[serve]\nport = 4\n");
    assert_eq!(port(&flag, &all, file), 1);
    assert_eq!(port(&none, &all, file), 2);
    assert_eq!(port(&none, &all[1..], file), 3);
    assert_eq!(port(&none, &[], file), 4);
    assert_eq!(port(&none, &[], None), relay::PORT);
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    assert_eq!(port(&ServeArgs::default(), &[("PORT", "")], None), relay::PORT);
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let cases = [
        ("[serve]\nport = 1\nprot = 2\n", 3, "no setting \"prot\": did you mean \"port\"?"),
        ("[limits]\nchange_bytes = 1\n", 2, "did you mean \"change-bytes\"?"),
        ("\n[server]\n", 2, "\"server\" is not known"),
        ("port = 1\n", 1, "\"port\" is not known"),
        ("[limits]\n\nfoo = 1\n", 3, "no setting \"foo\": `concord serve --print-config` lists"),
        ("[serve]\nport = 1\nport = 2\n", 3, "duplicate key"),
        ("[serve]\nhost = [\"a\"]\n", 2, "expected a string"),
        ("[serve\n", 1, ""),
    ];
    for (text, line, part) in cases {
        let error = resolve(&ServeArgs::default(), &[], Some(text)).unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with(&format!("{FILE}:{line}: ")), "{told}");
        assert!(told.contains(part), "{told} lacks {part}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn a_wrong_value_names_where_it_was_given() {
    let none = ServeArgs::default();
    let told = |env: &[_], file| resolve(&none, env, file).unwrap_err().to_string();
    assert!(told(&[("PORT", "70000")], None).starts_with("PORT: port cannot be \"70000\""));
    assert!(told(&[], Some("[serve]\n\nstore = \"disk\"")).starts_with("concord.toml:3: store"));
    assert!(told(&[("CONCORD_PONG_TIMEOUT_MS", "100")], None).contains("at least 15001"));
    assert!(told(&[("CONCORD_LIMIT_BYTE_BURST", "100")], None).contains("largest size"));
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let args = ServeArgs { config: Some("missing.toml".to_owned()), ..ServeArgs::default() };
    let error = resolve(&args, &[], None).unwrap_err();
    assert!(error.to_string().starts_with("cannot read missing.toml"));
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let args = ServeArgs { host: Some("::1".to_owned()), strict: true, ..ServeArgs::default() };
    let env = [("CONCORD_LIMIT_MESSAGE_BYTES", "1000000"), ("DATA_DIR", "a \"b\"")];
    let config = resolve(&args, &env, None).unwrap();
    let printed = config.to_toml();
    assert!(printed.contains("# --host") && printed.contains("# DATA_DIR"));
    assert!(printed.contains("# CONCORD_LIMIT_MESSAGE_BYTES"));

    let again = resolve(&ServeArgs::default(), &[], Some(&printed)).unwrap();
    let values = |config: &ServeConfig| {
        let lines = config.lines.iter();
        lines.map(|(_, key, value, _)| (*key, value.clone())).collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(&config));
    assert_eq!(again.relay.limits.message_bytes, 1_000_000);
    assert!(again.relay.strict);
    assert_eq!(SERVE_KEYS.len() + limits(&mut RelayConfig::default()).len(), values(&config).len());
}

#[test]
fn only_this_machine_is_not_exposed() {
    let exposed = |host: &str| {
        let args = ServeArgs { host: Some(host.to_owned()), ..ServeArgs::default() };
        resolve(&args, &[], None).unwrap().is_exposed()
    };
    assert!(!exposed("127.0.0.1") && !exposed("::1") && !exposed("localhost"));
    assert!(exposed("0.0.0.0") && exposed("example.org"));
}

#[test]
fn the_example_file_names_every_setting_with_its_default() {
    let example = include_str!("../../../concord.example.toml");
    let values = |file| {
        let config = resolve(&ServeArgs::default(), &[], file).unwrap();
        config.lines
    };
    let (examples, defaults) = (values(Some(example)), values(None));
    for (example, default) in examples.iter().zip(&defaults) {
        assert_eq!(example.2, default.2, "the default of {}", default.1);
        assert!(matches!(example.3, Source::File(..)), "{} is left out", default.1);
    }
}

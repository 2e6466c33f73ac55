//! The messages of presence: `{__presence: {type, ...}}`, in CBOR. Read as generously as clients
//! write, and never beyond a depth and a size.

use bytes::Bytes;
use minicbor::{Decoder, Encoder, data::Type};
use serde_json::{Map, Number, Value};

/// The key by which these are told from what else programs say.
const MARKER: &str = "__presence";
/// Bytes of a message that is looked at.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// How deep what is shown may be nested.
const DEPTH_MAX: usize = 16;

/// What somebody says of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::peer) enum Said {
    /// That they are here still; how often they say so, in milliseconds, where they say it.
    Heartbeat(Option<u64>),
    /// That they go.
    Goodbye,
    /// One part of what they show.
    Update(String, Value),
    /// All that they show; and how often they say that they are here.
    Snapshot(Map<String, Value>, Option<u64>),
}

impl Said {
    /// Reads a message; `None` for what is none of these.
    pub(in crate::peer) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return None;
        }
        let mut decoder = Decoder::new(bytes);
        let message = value(&mut decoder, DEPTH_MAX)?;
        let Value::Object(mut message) = message else { return None };
        let Value::Object(mut said) = message.remove(MARKER)? else { return None };
        let every = said.get("heartbeatMs").and_then(Value::as_u64);
        match said.get("type")?.as_str()? {
            "heartbeat" => Some(Self::Heartbeat(every)),
            "goodbye" => Some(Self::Goodbye),
            "update" => {
                let Value::String(channel) = said.remove("channel")? else { return None };
                Some(Self::Update(channel, said.remove("value").unwrap_or(Value::Null)))
            }
            "snapshot" => match said.remove("state") {
                Some(Value::Object(state)) => Some(Self::Snapshot(state, every)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The message as bytes.
    pub(in crate::peer) fn write(&self) -> Bytes {
        let mut said = Map::new();
        let mut put = |name: &str, value: Value| _ = said.insert(name.to_owned(), value);
        match self {
            Self::Heartbeat(every) => {
                put("type", "heartbeat".into());
                every.map(|every| put("heartbeatMs", every.into()));
            }
            Self::Goodbye => put("type", "goodbye".into()),
            Self::Update(channel, value) => {
                put("type", "update".into());
                put("channel", channel.as_str().into());
                put("value", value.clone());
            }
            Self::Snapshot(state, every) => {
                put("type", "snapshot".into());
                put("state", Value::Object(state.clone()));
                every.map(|every| put("heartbeatMs", every.into()));
            }
        }
        let mut encoder = Encoder::new(Vec::new());
        let message = Map::from_iter([(MARKER.to_owned(), Value::Object(said))]);
        // A vector takes all that is written.
        let _ = write(&mut encoder, &Value::Object(message));
        encoder.into_writer().into()
    }
}

/// One value as JSON has it; what JSON has not is nothing.
fn value(decoder: &mut Decoder<'_>, depth: usize) -> Option<Value> {
    let below = depth.checked_sub(1)?;
    Some(match decoder.datatype().ok()? {
        Type::Bool => Value::Bool(decoder.bool().ok()?),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => decoder.u64().ok()?.into(),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => decoder.i64().ok()?.into(),
        Type::F32 | Type::F64 => {
            let number = decoder.f64().ok()?;
            Number::from_f64(number).map_or(Value::Null, Value::Number)
        }
        Type::String => Value::String(decoder.str().ok()?.to_owned()),
        Type::Array | Type::ArrayIndef => {
            // What is declared is not allocated: each entry takes a byte at least.
            let length = decoder.array().ok()?;
            let mut items = Vec::new();
            while goes_on(decoder, length, items.len())? {
                items.push(value(decoder, below)?);
            }
            Value::Array(items)
        }
        Type::Map | Type::MapIndef => {
            let length = decoder.map().ok()?;
            let (mut entries, mut count) = (Map::new(), 0);
            while goes_on(decoder, length, count)? {
                count += 1;
                let key = value(decoder, 1)?;
                let value = value(decoder, below)?;
                if let Value::String(key) = key {
                    entries.insert(key, value);
                }
            }
            Value::Object(entries)
        }
        Type::Tag => {
            decoder.tag().ok()?;
            value(decoder, below)?
        }
        _ => {
            decoder.skip().ok()?;
            Value::Null
        }
    })
}

/// Whether there is one more of so many, or of as many as come before a break.
fn goes_on(decoder: &mut Decoder<'_>, length: Option<u64>, count: usize) -> Option<bool> {
    match length {
        Some(length) => Some((count as u64) < length),
        None if decoder.datatype().ok()? == Type::Break => {
            decoder.skip().ok()?;
            Some(false)
        }
        None => Some(true),
    }
}

fn write(
    encoder: &mut Encoder<Vec<u8>>,
    value: &Value,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    match value {
        Value::Null => _ = encoder.null()?,
        Value::Bool(value) => _ = encoder.bool(*value)?,
        Value::Number(number) => {
            if let Some(number) = number.as_u64() {
                encoder.u64(number)?;
            } else if let Some(number) = number.as_i64() {
                encoder.i64(number)?;
            } else {
                encoder.f64(number.as_f64().unwrap_or_default())?;
            }
        }
        Value::String(text) => _ = encoder.str(text)?,
        Value::Array(items) => {
            encoder.array(items.len() as u64)?;
            items.iter().try_for_each(|item| write(encoder, item))?;
        }
        Value::Object(entries) => {
            encoder.map(entries.len() as u64)?;
            for (key, value) in entries {
                encoder.str(key)?;
                write(encoder, value)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;
    use serde_json::json;

    use super::*;

    fn state(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let shown = json!({"a": [1, -2, 0.5, "x", null, true], "b": {"c": u64::MAX}});
        for said in [
            Said::Heartbeat(None),
            Said::Heartbeat(Some(5_000)),
            Said::Goodbye,
            Said::Update("cursor".to_owned(), json!({"from": 3, "to": 7})),
            Said::Snapshot(state(&shown), Some(5_000)),
        ] {
            assert_eq!(Said::read(&said.write()), Some(said));
        }
    }

    #[test]
    fn what_javascript_writes_is_read() {
        // cbor-x of {__presence: {type: "update", channel: "at", value: undefined}}, the map of
        // indefinite length, as streams write it.
        let mut bytes = vec![0xbf, 0x6a];
        bytes.extend(b"__presence");
        bytes.extend([0xb9, 0, 3, 0x64]);
        bytes.extend(b"type\x66update\x67channel\x62at\x65value\xf7\xff");
        assert_eq!(Said::read(&bytes), Some(Said::Update("at".to_owned(), Value::Null)));
    }

    #[test]
    fn what_is_too_deep_or_too_large_is_nothing() {
        let mut deep = json!(1);
        for _ in 0..DEPTH_MAX {
            deep = json!([deep]);
        }
        assert_eq!(Said::read(&Said::Update("a".to_owned(), deep).write()), None);
        let large = json!("x".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(Said::read(&Said::Update("a".to_owned(), large).write()), None);
        // An array of four billion entries that are not there.
        assert_eq!(Said::read(&[0x9a, 0xff, 0xff, 0xff, 0xff]), None);
        for other in [&b""[..], b"\x01", b"\xa0", b"\xa1\x61a\x01", &[0xff; 100]] {
            assert_eq!(Said::read(other), None);
        }
    }

    quickcheck! {
        fn no_bytes_make_it_panic(bytes: Vec<u8>) -> bool {
            let _ = Said::read(&bytes);
            true
        }
    }
}

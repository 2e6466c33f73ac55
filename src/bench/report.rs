//! What was found, as a table for people and as JSON for programs.

use std::{fmt, sync::atomic::Ordering::Relaxed};

use serde::Serialize;
use serde_json::{Map, Number, Value};

use super::{
    client::Traffic,
    server_usage::Usage,
    stats::{Percentiles, to_f64},
};

/// The result of one scenario.
#[derive(Debug, Serialize)]
pub struct Report {
    scenario: &'static str,
    settings: Map<String, Value>,
    figures: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Percentiles>,
    undelivered: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<String>,
    traffic: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    server: Map<String, Value>,
}

/// Different failures that a report spells out; the rest are only counted.
const FAILURES_MAX: usize = 5;

impl Report {
    pub(super) fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            settings: Map::new(),
            figures: Map::new(),
            latency: None,
            undelivered: 0,
            failures: Vec::new(),
            traffic: Map::new(),
            server: Map::new(),
        }
    }

    /// Something that was asked for.
    pub(super) fn setting(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// Something that was measured; the name ends in its unit.
    pub(super) fn figure(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), rounded(value));
    }

    pub(super) fn latency(&mut self, latency: Option<Percentiles>) {
        self.latency = latency;
    }

    /// What should have arrived and did not.
    pub(super) fn undelivered(&mut self, count: usize) {
        self.undelivered = u64::try_from(count).unwrap_or(u64::MAX);
    }

    /// Something that went wrong for one client, without ending the measurement.
    pub(super) fn failure(&mut self, failure: String) {
        if self.failures.len() < FAILURES_MAX && !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    pub(super) fn traffic(&mut self, traffic: &Traffic) {
        for (name, count) in [
            ("bytes_in", &traffic.bytes_in),
            ("bytes_out", &traffic.bytes_out),
            ("messages_in", &traffic.messages_in),
            ("messages_out", &traffic.messages_out),
        ] {
            self.traffic.insert(name.to_owned(), count.load(Relaxed).into());
        }
    }

    /// Memory of the server at a moment, and its processor time since the one before.
    pub(super) fn server(&mut self, moment: &str, usage: Option<Usage>, since: Option<Usage>) {
        let Some(usage) = usage else { return };
        self.server.insert(format!("rss_{moment}_mib"), rounded(usage.rss_mib));
        self.server.insert("peak_mib".to_owned(), rounded(usage.peak_mib));
        if let Some(since) = since {
            self.server.insert("cpu_s".to_owned(), rounded(usage.cpu_s - since.cpu_s));
        }
    }

    /// One object in one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }
}

/// Four decimals: no figure here is known better.
fn rounded(value: f64) -> Value {
    let value = (value * 10_000.0).round() / 10_000.0;
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.scenario)?;
        for (name, value) in &self.settings {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            write!(f, "  {name}={text}")?;
        }
        writeln!(f)?;
        if let Some(latency) = self.latency {
            line(f, "latency p50", latency.p50_ms, "ms")?;
            line(f, "latency p95", latency.p95_ms, "ms")?;
            line(f, "latency p99", latency.p99_ms, "ms")?;
            line(f, "latency max", latency.max_ms, "ms")?;
            line(f, "samples", to_f64(latency.samples), "")?;
        }
        for (name, value) in &self.figures {
            named(f, "", name, value)?;
        }
        line(f, "undelivered", to_f64(self.undelivered), "")?;
        for failure in &self.failures {
            writeln!(f, "  failed: {failure}")?;
        }
        for (name, value) in &self.traffic {
            named(f, "", name, value)?;
        }
        for (name, value) in &self.server {
            named(f, "server ", name, value)?;
        }
        Ok(())
    }
}

fn named(f: &mut fmt::Formatter<'_>, group: &str, name: &str, value: &Value) -> fmt::Result {
    let name = name.replace("_per_s", "/s").replace('_', " ");
    let (name, unit) = ["us", "ms", "s", "mib", "kib"]
        .iter()
        .find_map(|unit| Some((name.strip_suffix(unit)?.strip_suffix(' ')?, *unit)))
        .unwrap_or((&name, ""));
    line(f, &format!("{group}{name}"), value.as_f64().unwrap_or(0.0), unit)
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, value: f64, unit: &str) -> fmt::Result {
    let unit = match unit {
        "mib" => "MiB",
        "kib" => "KiB",
        "us" => "µs",
        other => other,
    };
    let decimals = if value.fract() == 0.0 || value >= 1_000.0 { 0 } else { 3 };
    writeln!(f, "  {name:<34} {value:>14.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_show_the_figures() {
        let mut report = Report::new("fanout");
        report.setting("readers", 10);
        report.figure("changes_per_s", 1234.5);
        report.undelivered(3);
        report.server("idle", Some(Usage { rss_mib: 9.25, ..Usage::default() }), None);
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["figures"]["changes_per_s"], 1234.5);
        assert_eq!(json["undelivered"], 3);
        assert_eq!(json["server"]["rss_idle_mib"], 9.25);
        let text = report.to_string();
        assert!(text.contains("readers=10") && text.contains("changes/s"), "{text}");
        assert!(text.contains("9.250 MiB"), "{text}");
    }

    #[test]
    fn failures_are_bounded() {
        let mut report = Report::new("connect");
        for n in 0..100 {
            report.failure(format!("failure {n}"));
        }
        assert_eq!(report.failures.len(), FAILURES_MAX);
    }
}

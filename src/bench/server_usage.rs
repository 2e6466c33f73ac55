//! CPU and memory of the server, from `/proc`, its child processes included.

use std::{fs, io};

use serde::Serialize;

use super::{BenchError, stats::to_f64};

/// Ticks a second in `/proc/PID/stat`: `USER_HZ`, which Linux keeps at 100 for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Watches one process and what it started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    pid: u32,
}

/// One look at it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Usage {
    /// Processor time used so far.
    pub(super) cpu_s: f64,
    /// Memory in use (`VmRSS`).
    pub(super) rss_mib: f64,
    /// The most it ever was (`VmHWM`), summed over processes.
    pub(super) peak_mib: f64,
}

impl Meter {
    /// Watches a process that is there.
    pub(super) fn new(pid: u32) -> Result<Self, BenchError> {
        let meter = Self { pid };
        meter.look()?;
        Ok(meter)
    }

    /// Adds up the process and its descendants.
    pub(super) fn look(self) -> Result<Usage, BenchError> {
        let failed = |source| BenchError::Process { pid: self.pid, source };
        let mut total = usage_of(self.pid).map_err(failed)?;
        for child in descendants(self.pid).map_err(failed)? {
            // One that has just ended is not there to be counted.
            if let Ok(usage) = usage_of(child) {
                total.cpu_s += usage.cpu_s;
                total.rss_mib += usage.rss_mib;
                total.peak_mib += usage.peak_mib;
            }
        }
        Ok(total)
    }
}

fn usage_of(pid: u32) -> io::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = fields_after_name(&stat).skip(11).take(2).filter_map(|f| f.parse::<u64>().ok());
    Ok(Usage {
        cpu_s: to_f64(ticks.sum::<u64>()) / TICKS_PER_SECOND,
        rss_mib: kib(&status, "VmRSS:") / 1024.0,
        peak_mib: kib(&status, "VmHWM:") / 1024.0,
    })
}

/// The fields after `pid (name)`: the name may hold spaces and brackets itself.
fn fields_after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

fn kib(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
    to_f64(line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0))
}

fn descendants(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if let Some(parent) = fields_after_name(&stat).nth(1).and_then(|f| f.parse::<u32>().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_numbers_of_this_process() {
        let usage = Meter::new(std::process::id()).unwrap().look().unwrap();
        assert!(usage.rss_mib > 0.5 && usage.peak_mib >= usage.rss_mib * 0.5, "{usage:?}");
    }

    #[test]
    fn a_child_counts() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(descendants(std::process::id()).unwrap().contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn names_with_brackets_do_not_shift_the_fields() {
        let stat = "12 (a b) c) S 7 1 1 0 -1 0 0 0 0 0 40 2 0 0";
        assert_eq!(fields_after_name(stat).nth(1), Some("7"));
        assert_eq!(fields_after_name(stat).nth(11), Some("40"));
    }
}

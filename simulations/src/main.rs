//! The command.
fn main() {
    let from: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(0);
    let to: u64 = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(from + 1);
    let trace = std::env::args().nth(3).is_some();
    let (mut events, mut ms, mut changes) = (0, 0, 0);
    let profile = if std::env::var_os("AUTOMERGE").is_some() {
        concord_simulations::plan::Profile::Automerge
    } else {
        concord_simulations::plan::Profile::Opaque
    };
    let start = std::time::Instant::now();
    let mut failed = 0;
    let mut coverage = concord_simulations::coverage::Coverage::default();
    for seed in from..to {
        let plan = concord_simulations::swarm::draw(seed, profile);
        let report = concord_simulations::run(&plan, trace);
        events += report.events;
        ms += report.simulated_ms;
        changes += report.changes;
        coverage.add(&report.coverage);
        if trace {
            for entry in &report.trace {
                println!("{:>12.3} {:?}", entry.at_us as f64 / 1000.0, entry.kind);
            }
            println!("{:?}", plan.settings);
        }
        if let Some(failure) = report.failure {
            failed += 1;
            println!(
                "seed {seed}: {} at {} ms: {}",
                failure.invariant.as_str(),
                failure.at_ms,
                failure.detail
            );
        }
    }
    let s = start.elapsed().as_secs_f64();
    println!(
        "{} seeds, {failed} failed, {events} events ({:.0}/s), {:.2} h simulated ({:.1} h/s), {changes} changes",
        to - from,
        events as f64 / s,
        ms as f64 / 3.6e6,
        ms as f64 / 3.6e6 / s
    );
    for (state, count) in coverage.iter() {
        println!("{count:>9} {state}");
    }
}

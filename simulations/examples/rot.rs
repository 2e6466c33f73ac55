use concord_simulations::{plan::{Profile, What}, run, swarm::draw};
fn main() {
    let from: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let to: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let (mut ran, mut failed) = (0, 0);
    let mut coverage = concord_simulations::coverage::Coverage::default();
    for seed in from..to {
        let mut plan = draw(seed, Profile::Opaque);
        let extra: u64 = std::env::var("ROTS").ok().and_then(|v| v.parse().ok()).unwrap_or(0);
        let mut rng = concord_simulations::random::Rng::new(seed ^ 0x707);
        for _ in 0..extra {
            let n = rng.small(0, plan.relays + plan.peers - 1);
            let node = if n < plan.relays { concord_simulations::plan::Name::Relay(n) } else { concord_simulations::plan::Name::Peer(n - plan.relays) };
            plan.actions.push(concord_simulations::plan::Action { at_ms: rng.between(plan.calm_ms / 4, plan.calm_ms - 1), what: What::Rot { node, choice: rng.next() } });
        }
        plan.actions.sort_by_key(|a| a.at_ms);
        if !plan.actions.iter().any(|a| matches!(a.what, What::Rot { .. })) { continue }
        let start = std::time::Instant::now();
        let report = run(&plan, std::env::var_os("T").is_some());
        for e in &report.trace { println!("{:>12.3} {:?}", e.at_us as f64 / 1000.0, e.kind); }
        if std::env::var_os("T").is_some() { println!("{:?}", plan.settings); }
        ran += 1;
        coverage.add(&report.coverage);
        if let Some(f) = report.failure {
            failed += 1;
            println!("seed {seed}: {} at {} ms: {} ({} rots, {:.1} s)", f.invariant.as_str(), f.at_ms, f.detail, report.faults.get("bit rot").copied().unwrap_or(0), start.elapsed().as_secs_f32());
        }
    }
    println!("{ran} worlds with rot, {failed} failed");
    if std::env::args().nth(3).is_some() { for (s, c) in coverage.iter() { println!("{c:>9} {s}"); } }
}

//! What `concord top` looks like: from what is known to a screen.

use concord::peer::{OutboxEntry, OutboxState, Overview, RelayState, RelayStatus};
use indicatif::HumanBytes;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Paragraph, Row, Sparkline, Table},
};

use crate::cli::{
    output,
    status::{self, seconds},
};

/// Lines of the block of passes: two of borders.
const PASSES_LINES: u16 = 6;
/// Relays that are shown at most.
const RELAYS_MAX: usize = 5;
/// Lines of a table besides its rows: its borders and its headings.
const TABLE_LINES: u16 = 3;

/// The whole screen.
pub(super) fn all(frame: &mut Frame<'_>, overview: &Overview, entries: &[OutboxEntry]) {
    let is_stuck =
        |entry: &&OutboxEntry| !matches!(entry.state, OutboxState::Pending | OutboxState::Sending);
    let (mut stuck, mut waiting): (Vec<_>, Vec<_>) = entries.iter().partition(is_stuck);
    stuck.sort_by_key(|entry| entry.since_ms);
    waiting.sort_by_key(|entry| entry.since_ms);
    let relays = lines(overview.relays.len().clamp(1, RELAYS_MAX));
    let stuck_lines = if stuck.is_empty() { 0 } else { lines(stuck.len().min(6)) };
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(relays),
        Constraint::Min(TABLE_LINES + 1),
        Constraint::Length(stuck_lines),
        Constraint::Length(PASSES_LINES),
        Constraint::Length(1),
    ]);
    let [head, relays, outbox, refused, passes, foot] = areas.areas(frame.area());
    frame.render_widget(headline(overview), head);
    self::relays(frame, relays, overview);
    waiting_table(frame, outbox, overview, &waiting);
    if !stuck.is_empty() {
        stuck_table(frame, refused, &stuck);
    }
    self::passes(frame, passes, overview);
    let help = " q ends    concord outbox and concord dead-letters say more";
    frame.render_widget(Line::from(help).dim(), foot);
}

/// Lines of a table with so many rows.
fn lines(rows: usize) -> u16 {
    u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(TABLE_LINES)
}

fn headline(overview: &Overview) -> Line<'static> {
    let word = if overview.is_in_step() {
        Span::from("in step").green().bold()
    } else if overview.status.is_online() {
        Span::from("online").green().bold()
    } else {
        Span::from("offline").yellow().bold()
    };
    let last = overview.passes.synchronised_ms().map_or_else(
        || "not synchronised since the start".to_owned(),
        |ms| format!("last synchronised {}", output::ago(seconds(ms), output::now())),
    );
    let conflicts = match overview.conflicts {
        None | Some(0) => Span::default(),
        Some(1) => Span::from("  1 conflict open").yellow(),
        Some(open) => Span::from(format!("  {open} conflicts open")).yellow(),
    };
    Line::from(vec![" concord  ".bold(), word, Span::from(format!("  {last}")), conflicts])
}

fn relays(frame: &mut Frame<'_>, area: Rect, overview: &Overview) {
    let block = Block::bordered().title(" Relays ".bold());
    if overview.relays.is_empty() {
        let none = Paragraph::new(" none was given: --url ws://host:port or CONCORD_URL");
        return frame.render_widget(none.block(block), area);
    }
    let rows = overview.relays.iter().map(relay);
    let widths = [
        Constraint::Min(24),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Fill(1),
    ];
    let headings = Row::new(["URL", "STATE", "LATENCY", "SENT", "RECEIVED", ""]).dim();
    frame.render_widget(Table::new(rows, widths).header(headings).block(block), area);
}

fn relay(relay: &RelayStatus) -> Row<'static> {
    let (state, why) = status::relay_state(relay);
    let colour = match relay.state {
        RelayState::Online if relay.in_use => Color::Green,
        RelayState::Stopped { .. } => Color::Red,
        RelayState::Standby => Color::Reset,
        _ => Color::Yellow,
    };
    Row::new([
        Line::from(relay.url.clone()),
        Line::styled(state, Style::new().fg(colour)),
        Line::from(status::latency(relay).unwrap_or_else(|| "-".to_owned())),
        Line::from(HumanBytes(relay.sent_bytes).to_string()),
        Line::from(HumanBytes(relay.received_bytes).to_string()),
        Line::from(output::short(&why, 120)),
    ])
}

fn waiting_table(frame: &mut Frame<'_>, area: Rect, overview: &Overview, waiting: &[&OutboxEntry]) {
    let title =
        vec![" Outbox ".bold(), Span::from(format!("{} ", status::counts(&overview.outbox)))];
    let block = Block::bordered().title(Line::from(title));
    if waiting.is_empty() {
        let none = Paragraph::new(" nothing is on its way").dim();
        return frame.render_widget(none.block(block), area);
    }
    let now = output::now();
    // No more than can be seen: there may be many.
    let rows = waiting.iter().take(usize::from(area.height)).map(|entry| {
        let state = if entry.state == OutboxState::Sending { "sending" } else { "pending" };
        let since = output::ago(seconds(entry.since_ms), now);
        let priority = entry.level.to_string();
        Row::new([entry.document.to_string(), since, priority, state.to_owned()])
    });
    let widths = [
        Constraint::Length(30),
        Constraint::Length(14),
        Constraint::Length(8),
        Constraint::Fill(1),
    ];
    let headings = Row::new(["DOCUMENT, OLDEST FIRST", "EDITED", "PRIORITY", "STATE"]).dim();
    frame.render_widget(Table::new(rows, widths).header(headings).block(block), area);
}

fn stuck_table(frame: &mut Frame<'_>, area: Rect, stuck: &[&OutboxEntry]) {
    let block = Block::bordered().title(" For you to decide ".bold()).border_style(Color::Red);
    let rows = stuck.iter().take(usize::from(area.height)).map(|entry| {
        let (what, why) = match &entry.state {
            OutboxState::Refused { code, reason, changes, .. } => {
                (format!("{changes} refused"), format!("{}: {reason}", code.as_str()))
            }
            OutboxState::Failed { reason } => ("failed".to_owned(), reason.clone()),
            _ => ("other".to_owned(), String::new()),
        };
        Row::new([entry.document.to_string(), what, output::short(&why, 200)])
    });
    let widths = [Constraint::Length(30), Constraint::Length(14), Constraint::Fill(1)];
    let headings = Row::new(["DOCUMENT", "CHANGES", "WHY"]).dim();
    frame.render_widget(Table::new(rows, widths).header(headings).block(block), area);
}

fn passes(frame: &mut Frame<'_>, area: Rect, overview: &Overview) {
    let words = status::passes(overview).unwrap_or_else(|| "none yet".to_owned());
    let title = vec![" Passes ".bold(), Span::from(format!("{words} "))];
    let block = Block::bordered().title(Line::from(title));
    // The latest at the right, and those before it as far as there is room. Less than a
    // millisecond is a bar all the same.
    let room = usize::from(area.width.saturating_sub(2));
    let mut bars: Vec<u64> =
        overview.passes.iter().rev().take(room).map(|pass| pass.took_ms.max(1)).collect();
    bars.reverse();
    frame.render_widget(Sparkline::default().data(bars).green().block(block), area);
}

//! Draws the status. Everything on the screen comes from [`Screen`], so a test can draw without a terminal.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table};

use super::history::History;
use super::text::{ENDPOINT, PARTITION, blocked, endpoint, oldest, partition};
use crate::admin::status::{Status, WorkerStatus};
use crate::printable::escaped;

/// The rows of the tables of workers and of blocked partitions, at most.
const ROWS_MAX: usize = 8;

/// What is on the screen.
pub(super) struct Screen {
    server: String,
    status: Option<Status>,
    /// Why the last question had no answer, and since when that is so.
    problem: Option<(String, Instant)>,
    history: History,
    pub(super) is_paused: bool,
    /// The number of endpoints above the first one that is shown.
    above: usize,
}

impl Screen {
    pub(super) fn new(server: String) -> Self {
        let server = escaped(&server).into_owned();
        Self { server, status: None, problem: None, history: History::default(), is_paused: false, above: 0 }
    }

    /// Takes an answer. A failed one leaves the last status on the screen.
    pub(super) fn take(&mut self, answer: Result<Status, String>, now: Instant) {
        match answer {
            Ok(status) => {
                self.history.note(&status, now);
                self.status = Some(status);
                self.problem = None;
            }
            Err(problem) => {
                let since = self.problem.as_ref().map_or(now, |(_, since)| *since);
                self.problem = Some((escaped(&problem).into_owned(), since));
            }
        }
        self.scroll(0);
    }

    /// Scrolls the endpoints down.
    pub(super) fn scroll(&mut self, rows: usize) {
        let last = self.status.as_ref().map_or(0, |status| status.endpoints.len().saturating_sub(1));
        self.above = (self.above + rows).min(last);
    }

    /// Scrolls the endpoints up.
    pub(super) fn scroll_back(&mut self, rows: usize) {
        self.above = self.above.saturating_sub(rows);
    }
}

/// Draws the screen, whatever its size.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let blocked_rows = screen.status.as_ref().map_or(0, |status| blocked(status).len().min(ROWS_MAX));
    let worker_rows = screen.status.as_ref().map_or(0, |status| status.workers.len().clamp(1, ROWS_MAX));
    let [head, numbers, workers, partitions, endpoints] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Length(rows(worker_rows)),
        Constraint::Length(rows(blocked_rows.max(1))),
        Constraint::Min(0),
    ])
    .areas(frame.area());
    frame.render_widget(head_line(screen), head);
    let Some(status) = &screen.status else { return };
    draw_numbers(frame, screen, status, numbers);
    frame.render_widget(workers_table(&status.workers), workers);
    draw_blocked(frame, status, partitions);
    draw_endpoints(frame, screen, status, endpoints);
}

/// The height of a table with this many rows, its border and its column names.
fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX).saturating_add(2)
}

fn head_line(screen: &Screen) -> Paragraph<'_> {
    let state = match &screen.problem {
        Some((problem, since)) => {
            let seconds = since.elapsed().as_secs();
            Span::styled(format!("no answer for {seconds}s: {problem}"), Style::new().fg(Color::Red).bold())
        }
        None if screen.is_paused => Span::styled("paused", Style::new().fg(Color::Yellow)),
        None if screen.status.is_none() => Span::raw("asking…"),
        None => Span::raw("q quits, space pauses, ↑↓ scroll"),
    };
    Paragraph::new(Line::from(vec![Span::raw(screen.server.as_str()).bold(), Span::raw("  "), state]))
}

fn draw_numbers(frame: &mut Frame<'_>, screen: &Screen, status: &Status, area: Rect) {
    let [words, chart] = Layout::horizontal([Constraint::Length(42), Constraint::Min(0)]).areas(area);
    let rates = match screen.history.rates() {
        Some(rates) => format!("{:.1}/s written, {:.1}/s settled", rates.written, rates.settled),
        None => "…".to_owned(),
    };
    let (in_flight, max) =
        status.workers.iter().fold((0, 0), |(now, max), one| (now + one.in_flight, max + one.in_flight_max));
    let lines = vec![
        Line::from(format!("unsettled  {}", status.lag)),
        Line::from(format!("oldest     {}", oldest(status))),
        Line::from(format!("events     {rates}")),
        Line::from(format!("in flight  {in_flight} of {max}")),
    ];
    frame.render_widget(Paragraph::new(lines), words);
    let lags = screen.history.lags(usize::from(chart.width));
    frame.render_widget(Sparkline::default().data(&lags).style(Style::new().fg(Color::Cyan)), chart);
}

fn workers_table(workers: &[WorkerStatus]) -> Table<'_> {
    let row = |one: &WorkerStatus| {
        Row::new([
            escaped(&one.worker).into_owned(),
            escaped(&one.version).into_owned(),
            format!("{}/{}", one.in_flight, one.in_flight_max),
            one.partitions.to_string(),
        ])
    };
    let hidden = workers.len().saturating_sub(ROWS_MAX);
    let title = match (workers.len(), hidden) {
        (0, _) => " no worker runs ".to_owned(),
        (1, _) => " 1 worker ".to_owned(),
        (count, 0) => format!(" {count} workers "),
        (count, hidden) => format!(" {count} workers, {hidden} of them not shown "),
    };
    let widths = [Constraint::Fill(2), Constraint::Length(10), Constraint::Length(12), Constraint::Length(10)];
    table(workers.iter().take(ROWS_MAX).map(row), widths, ["WORKER", "VERSION", "IN FLIGHT", "PARTITIONS"], title)
}

fn draw_blocked(frame: &mut Frame<'_>, status: &Status, area: Rect) {
    let all = blocked(status);
    let title = match all.len() {
        0 => " nothing blocks a watermark ".to_owned(),
        1 => " 1 partition waits for a record ".to_owned(),
        count => format!(" {count} partitions wait for a record "),
    };
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Length(10),
        Constraint::Length(18),
        Constraint::Fill(2),
    ];
    frame.render_widget(
        table(all.into_iter().take(ROWS_MAX).map(|one| Row::new(partition(one))), widths, PARTITION, title),
        area,
    );
}

fn draw_endpoints(frame: &mut Frame<'_>, screen: &Screen, status: &Status, area: Rect) {
    let title = match (status.endpoints.len(), screen.above) {
        (0, _) => " no endpoint is busy or backs off ".to_owned(),
        (1, _) => " 1 endpoint ".to_owned(),
        (count, 0) => format!(" {count} endpoints, the worst first "),
        (count, above) => format!(" {count} endpoints, from number {} ", above + 1),
    };
    let row = |one| {
        let cells = endpoint(one);
        let style = match cells[1].as_str() {
            "open" => Style::new().fg(Color::Red),
            "half open" => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        Row::new(cells.map(Cell::from)).style(style)
    };
    let widths = [
        Constraint::Length(36),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Fill(1),
    ];
    let shown = status.endpoints.iter().skip(screen.above).take(usize::from(area.height));
    frame.render_widget(table(shown.map(row), widths, ENDPOINT, title), area);
}

fn table<'a, const N: usize>(
    rows: impl Iterator<Item = Row<'a>>,
    widths: [Constraint; N],
    columns: [&'static str; N],
    title: String,
) -> Table<'a> {
    let head = Row::new(columns).style(Style::new().add_modifier(Modifier::DIM));
    Table::new(rows, widths).header(head).block(Block::new().borders(Borders::TOP).title(title))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::text::tests::status;
    use super::*;

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(line).collect::<Vec<_>>().join("\n")
    }

    fn screen() -> Screen {
        let mut screen = Screen::new("http://127.0.0.1:8080/".to_owned());
        screen.take(Ok(status()), Instant::now());
        screen
    }

    #[test]
    fn the_screen_shows_lag_workers_blocked_partitions_and_endpoints() {
        let text = drawn(&screen(), 110, 30);
        for part in
            ["unsettled  1200", "oldest     61s", "5/256", "sending, paused", "no worker reads it", "open       8s"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "what comes from outside is escaped: {text}");
    }

    #[test]
    fn any_size_can_be_drawn() {
        for (width, height) in [(1, 1), (10, 3), (40, 10), (80, 24), (300, 100)] {
            drawn(&screen(), width, height);
            drawn(&Screen::new("s".to_owned()), width, height);
        }
    }

    #[test]
    fn a_server_that_stops_to_answer_leaves_the_last_status_and_says_so() {
        let mut screen = screen();
        screen.take(Err("connection refused".to_owned()), Instant::now());
        let text = drawn(&screen, 110, 30);
        assert!(text.contains("no answer for 0s: connection refused") && text.contains("unsettled  1200"), "{text}");
        screen.take(Ok(status()), Instant::now());
        assert!(!drawn(&screen, 110, 30).contains("no answer"));
    }

    #[test]
    fn scrolling_ends_at_the_last_endpoint() {
        let mut screen = screen();
        screen.scroll(50);
        assert_eq!(screen.above, 0, "there is only one");
        let mut many = status();
        many.endpoints = vec![many.endpoints[0].clone(); 40];
        screen.take(Ok(many), Instant::now());
        screen.scroll(100);
        assert_eq!(screen.above, 39);
        screen.take(Ok(status()), Instant::now());
        assert_eq!(screen.above, 0, "fewer endpoints scroll back");
    }
}

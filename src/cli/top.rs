//! `top`: the state of the whole system in a terminal, live. It reads `/api/status`.

mod feed;
mod history;
mod text;
mod view;

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use futures_util::StreamExt as _;

use super::output::{self, say};
use super::{Failure, health};
use crate::config::Config;
use feed::Feed;
use view::Screen;

/// `optio-webhooks top`
#[derive(clap::Args)]
#[command(after_help = "Keys: q quits, space pauses, the arrows and Page Up/Down scroll the endpoints.
The token is admin.token of the configuration. Without a terminal, one text is printed, as with --once.")]
pub struct Top {
    /// The address of an admin server. By default that of this machine's configuration (admin.listen).
    #[arg(long, value_name = "URL")]
    server: Option<url::Url>,
    /// How often the status is read.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print the status once as text, and end.
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_millis(200)..=Duration::from_secs(3_600);
    let parsed = humantime::parse_duration(text).ok().filter(|interval| allowed.contains(interval));
    parsed.ok_or_else(|| "must be a time from 200ms to 1h, such as 2s".to_owned())
}

/// The rows that Page Up and Page Down scroll.
const PAGE: usize = 10;

impl Top {
    /// Shows the status until a key or a signal ends it.
    ///
    /// # Errors
    /// With `--once`, if the server doesn't answer. A live view shows that and goes on.
    pub async fn run(self, config: &Config) -> Result<(), Failure> {
        let server = match self.server {
            Some(server) => server,
            None => format!("http://{}", health::reachable(config.admin.listen))
                .parse()
                .map_err(|error| Failure::Usage(format!("admin.listen is no address to ask at: {error}")))?,
        };
        let feed = Feed::new(server, &config.admin.token)?;
        if self.once || !output::stdout_is_terminal() {
            let status = feed.status().await.map_err(|problem| anyhow::anyhow!("{}: {problem}", feed.server))?;
            text::lines(&status).iter().for_each(|line| say(line));
            return Ok(());
        }
        let mut terminal =
            ratatui::try_init().map_err(|error| anyhow::anyhow!("the terminal can't be used: {error}"))?;
        let ended = live(&mut terminal, &feed, self.interval).await;
        ratatui::restore();
        ended.map_err(|error| anyhow::anyhow!("the terminal: {error}").into())
    }
}

/// Draws until a key or a signal ends it.
async fn live(terminal: &mut ratatui::DefaultTerminal, feed: &Feed, interval: Duration) -> std::io::Result<()> {
    let mut screen = Screen::new(feed.server.to_string());
    let mut keys = EventStream::new();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut terminated, mut hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    // A slow server must not delay a key.
    let mut asking: Option<std::pin::Pin<Box<dyn Future<Output = _> + '_>>> = None;
    loop {
        terminal.draw(|frame| view::draw(frame, &screen))?;
        let answer = async {
            match &mut asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = answer => {
                asking = None;
                screen.take(answer, Instant::now());
            }
            _ = ticks.tick() => if !screen.is_paused && asking.is_none() {
                asking = Some(Box::pin(feed.status()));
            },
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) => if !press(&mut screen, key) { return Ok(()) },
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

/// Follows a key. Returns whether the view goes on.
fn press(screen: &mut Screen, key: KeyEvent) -> bool {
    if key.kind == KeyEventKind::Release {
        return true;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char(' ') => screen.is_paused = !screen.is_paused,
        KeyCode::Down | KeyCode::Char('j') => screen.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => screen.scroll_back(1),
        KeyCode::PageDown => screen.scroll(PAGE),
        KeyCode::PageUp => screen.scroll_back(PAGE),
        _ => {}
    }
    true
}

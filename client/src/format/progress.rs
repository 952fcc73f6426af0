//! Progress of a pull: bars on a terminal, plain lines elsewhere.
//!
//! A terminal shows a line per layer, redrawn in place a few times a second, cut to its width; more
//! layers than it has lines for are summed up in one. Elsewhere each layer gets a line when its
//! state changes.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use rcd_proto::types::image::{LayerProgress, LayerState};

use super::units;
use crate::commands::pull::Progress;
use crate::error::Error;
use crate::{terminal, text};

/// Shortest time between two redraws.
const REDRAW_MS_MIN: u64 = 50;

/// Size of a terminal that does not tell it.
const DEFAULT_SIZE: terminal::Size = terminal::Size {
    rows: 24,
    columns: 80,
};

/// Width of a bar between its brackets, where there is room.
const BAR_CHARS_MAX: usize = 40;

/// Where progress is drawn.
#[derive(Debug)]
pub struct Screen {
    progress: Progress,
    terminal: bool,
    layers: Vec<LayerProgress>,
    /// Lines of the last drawing, above the cursor.
    drawn: usize,
    drawn_at: Option<Instant>,
}

impl Screen {
    /// An empty screen.
    pub fn new(progress: Progress) -> Screen {
        let terminal = match progress {
            Progress::Stdout => std::io::stdout().is_terminal(),
            Progress::Stderr => std::io::stderr().is_terminal(),
            Progress::Quiet => false,
        };
        Screen {
            progress,
            terminal,
            layers: Vec::new(),
            drawn: 0,
            drawn_at: None,
        }
    }

    /// Prints a line below what is drawn.
    ///
    /// # Errors
    /// Nobody reads stdout.
    pub fn line(&self, line: &str) -> Result<(), Error> {
        self.print(&(text::printable(line) + "\n"))
    }

    /// Takes layers that changed, and shows them.
    ///
    /// # Errors
    /// Nobody reads stdout.
    pub fn update(&mut self, changed: &[LayerProgress]) -> Result<(), Error> {
        for layer in changed {
            let known = self
                .layers
                .iter_mut()
                .find(|known| known.digest == layer.digest);
            let news = known
                .as_ref()
                .is_none_or(|known| known.state != layer.state);
            match known {
                Some(known) => *known = layer.clone(),
                None => self.layers.push(layer.clone()),
            }
            if news && !self.terminal && layer.state != LayerState::Waiting {
                self.line(&format!(
                    "{}: {}",
                    text::short_id(&layer.digest),
                    state(layer.state)
                ))?;
            }
        }
        let recent = self
            .drawn_at
            .is_some_and(|at| at.elapsed() < Duration::from_millis(REDRAW_MS_MIN));
        if self.terminal && !recent {
            self.draw()
        } else {
            Ok(())
        }
    }

    /// Draws the last state.
    ///
    /// # Errors
    /// Nobody reads stdout.
    pub fn finish(&mut self) -> Result<(), Error> {
        if self.terminal { self.draw() } else { Ok(()) }
    }

    fn draw(&mut self) -> Result<(), Error> {
        let size = match self.progress {
            Progress::Stdout => terminal::size(std::io::stdout()),
            _ => terminal::size(std::io::stderr()),
        };
        let lines = render(&self.layers, size.unwrap_or(DEFAULT_SIZE));
        let mut out = String::new();
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn);
        }
        for line in &lines {
            let _ = write!(out, "\r\x1b[2K{line}\n");
        }
        // The terminal may have grown shorter: what was drawn below is stale.
        out.push_str("\x1b[J");
        self.drawn = lines.len();
        self.drawn_at = Some(Instant::now());
        self.print(&out)
    }

    fn print(&self, text: &str) -> Result<(), Error> {
        match self.progress {
            Progress::Stdout => text::print(text),
            Progress::Stderr => {
                text::warn(text);
                Ok(())
            }
            Progress::Quiet => Ok(()),
        }
    }
}

fn state(state: LayerState) -> &'static str {
    match state {
        LayerState::Waiting => "Waiting",
        LayerState::Pulling => "Pulling",
        LayerState::Done => "Pull complete",
        LayerState::Exists => "Already exists",
    }
}

/// The lines to draw on a terminal of this size.
fn render(layers: &[LayerProgress], size: terminal::Size) -> Vec<String> {
    let columns = usize::from(size.columns).max(20);
    // The line of the cursor, and the one that names the image.
    let room = usize::from(size.rows).saturating_sub(2).max(1);
    if layers.len() <= room {
        return layers
            .iter()
            .map(|layer| layer_line(layer, columns))
            .collect();
    }
    let done = layers
        .iter()
        .filter(|layer| matches!(layer.state, LayerState::Done | LayerState::Exists))
        .count();
    let sum =
        |value: fn(&LayerProgress) -> i64| layers.iter().map(value).fold(0, i64::saturating_add);
    let line = format!(
        "{done} of {} layers, {}/{}",
        layers.len(),
        units::size(sum(|layer| layer.received_bytes)),
        units::size(sum(|layer| layer.total_bytes))
    );
    vec![text::ellipsis(&line, columns - 1)]
}

fn layer_line(layer: &LayerProgress, columns: usize) -> String {
    let head = format!("{}: {}", text::short_id(&layer.digest), state(layer.state));
    if layer.state != LayerState::Pulling {
        return text::ellipsis(&head, columns - 1);
    }
    let (received, total) = (layer.received_bytes.max(0), layer.total_bytes.max(0));
    let tail = format!("{:>7}/{}", units::size(received), units::size(total));
    let room = (columns - 1)
        .saturating_sub(head.len() + tail.len() + 4)
        .min(BAR_CHARS_MAX);
    if room < 4 {
        return text::ellipsis(&format!("{head} {tail}"), columns - 1);
    }
    let filled = usize::try_from(i128::from(received) * room as i128 / i128::from(total.max(1)))
        .unwrap_or(room)
        .min(room);
    let mut bar = "=".repeat(filled);
    if filled < room {
        bar.push('>');
    }
    format!("{head} [{bar:<room$}] {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(received_bytes: i64, state: LayerState) -> LayerProgress {
        LayerProgress {
            digest: "sha256:0123456789abcdef".into(),
            state,
            received_bytes,
            total_bytes: 2_000_000,
        }
    }

    #[test]
    fn lines_fit_the_terminal() {
        let layers = vec![
            layer(1_000_000, LayerState::Pulling),
            layer(5_000_000, LayerState::Pulling),
            layer(0, LayerState::Exists),
        ];
        for columns in [0, 1, 20, 40, 60, 80, 200] {
            for line in render(&layers, terminal::Size { rows: 24, columns }) {
                assert!(
                    line.chars().count() < usize::from(columns).max(20),
                    "{columns}: {line:?}"
                );
            }
        }
        let lines = render(
            &layers,
            terminal::Size {
                rows: 24,
                columns: 80,
            },
        );
        assert_eq!(
            lines[0],
            "0123456789ab: Pulling [====================>                   ]     1MB/2MB"
        );
        assert_eq!(lines[2], "0123456789ab: Already exists");
    }

    #[test]
    fn more_layers_than_lines_are_summed_up() {
        let layers = vec![layer(1_000_000, LayerState::Done); 30];
        assert_eq!(
            render(&layers, DEFAULT_SIZE),
            ["30 of 30 layers, 30MB/60MB"]
        );
    }
}

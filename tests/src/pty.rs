//! A terminal of one's own: a program runs on it as on a person's, keys are pressed, and what would be seen is read.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::host::eventually;

/// From a key, or another happening, to what is seen of it.
const SIGHT_LIMIT: Duration = Duration::from_secs(20);
/// From the key that ends a program to its end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A program on a terminal. Killed when dropped.
pub struct Pty {
    child: Child,
    keys: File,
    /// Keeps the terminal's modes readable after the program's end.
    slave: OwnedFd,
    seen: Arc<Mutex<vt100::Parser>>,
    before: Termios,
}

// === impl Pty ===

impl Pty {
    /// Starts a command, with its variables, on a terminal of so many columns and lines. It leads a session of its own,
    /// whose terminal this is.
    ///
    /// # Errors
    /// If there is no terminal to be had, or the command (by `setsid` of util-linux) cannot be started.
    pub fn start(command: &Command, columns: u16, lines: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("a new terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?.into_string()?;
        tcsetwinsize(&master, size(columns, lines))?;
        let slave = File::options().read(true).write(true).open(&path).context(path)?;
        let before = tcgetattr(&slave)?;
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let own = || slave.try_clone().map(Stdio::from);
        let child = session
            .stdin(own()?)
            .stdout(own()?)
            .stderr(own()?)
            .spawn()
            .context("start the command by setsid (util-linux)")?;
        let seen = Arc::new(Mutex::new(vt100::Parser::new(lines, columns, 0)));
        let keys = File::from(master);
        let screen = keys.try_clone()?;
        let shared = seen.clone();
        thread::spawn(move || watch(screen, &shared));
        Ok(Self { child, keys, slave: slave.into(), seen, before })
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Presses keys: what a terminal sends for them.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes()).context("press keys")
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn resize(&mut self, columns: u16, lines: u16) -> Result<()> {
        self.look(|parser| parser.screen_mut().set_size(lines, columns));
        tcsetwinsize(&self.keys, size(columns, lines)).context("resize the terminal")
    }

    /// The screen as a person sees it.
    #[must_use]
    pub fn screen(&self) -> vt100::Screen {
        self.look(|parser| parser.screen().clone())
    }

    /// Waits until the screen's text is as wanted; the text is in the message otherwise.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn sees(&self, what: &str, is_there: impl Fn(&str) -> bool) -> Result<String> {
        let mut text = String::new();
        eventually(what, SIGHT_LIMIT, || {
            text = self.screen().contents();
            Ok(is_there(&text))
        })
        .with_context(|| format!("the screen:\n{}", self.screen().contents()))?;
        Ok(text)
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// If it goes on.
    pub fn end(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        eventually("the program's end", END_LIMIT, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        status.context("no status")
    }

    /// Whether the terminal is as it was before the program: its modes, its screen, its cursor.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn is_given_back(&self) -> Result<bool> {
        let now = tcgetattr(&self.slave)?;
        let modes = |termios: &Termios| {
            (termios.input_modes, termios.output_modes, termios.control_modes, termios.local_modes)
        };
        let screen = self.screen();
        Ok(modes(&now) == modes(&self.before) && !screen.alternate_screen() && !screen.hide_cursor())
    }

    /// Whether keys reach the program one by one and unseen.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn is_raw(&self) -> Result<bool> {
        Ok(!tcgetattr(&self.slave)?.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO))
    }

    fn look<T>(&self, look: impl FnOnce(&mut vt100::Parser) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16, lines: u16) -> Winsize {
    Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Draws what the program sends, until the terminal is gone.
fn watch(mut screen: File, seen: &Mutex<vt100::Parser>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = screen.read(&mut bytes) {
        let sent = bytes.get(..count).unwrap_or_default();
        seen.lock().unwrap_or_else(PoisonError::into_inner).process(sent);
    }
}

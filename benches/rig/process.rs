//! A process of the benchmark: this very program with another role, or the worker.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Linux counts processor time in these, whatever the kernel's own tick (`man 7 time`, USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

pub struct Process {
    child: Child,
}

impl Process {
    /// This program, as `role`.
    pub fn role(role: &str, arguments: &[String]) -> Self {
        let program = std::env::current_exe().expect("a running program has a path");
        Self::start(Command::new(program).arg(format!("role={role}")).args(arguments))
    }

    pub fn start(command: &mut Command) -> Self {
        Self { child: command.stdin(Stdio::null()).spawn().expect("the program starts") }
    }

    /// Processor time so far, of user and system.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process lives");
        // The name before it may contain spaces; what follows its bracket doesn't.
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a bracket").split_whitespace().collect();
        let ticks: f64 = [11, 12].iter().map(|at| fields[*at].parse::<f64>().expect("a number")).sum();
        Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
    }

    /// Panics if it ended by itself: what is waited for would never come.
    pub fn assert_alive(&mut self) {
        if let Some(exit) = self.child.try_wait().expect("our own child") {
            panic!("the process ended: {exit}");
        }
    }

    /// Whether it ended; panics if that was a failure.
    pub fn has_ended(&mut self) -> bool {
        let exit = self.child.try_wait().expect("our own child");
        assert!(exit.is_none_or(|exit| exit.success()), "the process failed");
        exit.is_some()
    }

    /// None once it has ended.
    pub fn memory_peak_mib(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1_024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

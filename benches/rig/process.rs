//! A child process of the benchmark: the benchmark itself in another role, or the worker.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The unit of processor time in `/proc` (USER_HZ in `man 7 time`). It is independent of the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

pub struct Process {
    child: Child,
}

impl Process {
    /// Starts this benchmark in the role `role`.
    pub fn role(role: &str, arguments: &[String]) -> Self {
        let program = std::env::current_exe().expect("a running program has a path");
        let mut command = Command::new(program);
        // The worker sets the same, so that only the work differs.
        command.env("MIMALLOC_PURGE_DELAY", "10");
        Self::start(command.arg(format!("role={role}")).args(arguments))
    }

    pub fn start(command: &mut Command) -> Self {
        Self { child: command.stdin(Stdio::null()).spawn().expect("the program starts") }
    }

    /// The user and system time that the process has used so far.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process runs");
        // The second field, the name, may contain spaces, so the fields are counted from its closing bracket.
        let fields: Vec<&str> = stat.rsplit(')').next().expect("the name is in brackets").split_whitespace().collect();
        let ticks: f64 = [11, 12].iter().map(|at| fields[*at].parse::<f64>().expect("the field is a number")).sum();
        Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
    }

    /// Asks the process to end, and returns how long that took.
    pub fn terminate(&mut self) -> Duration {
        let began = std::time::Instant::now();
        let asked = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill is there");
        assert!(asked.success() && self.child.wait().expect("the process is our child").success(), "it ends well");
        began.elapsed()
    }

    /// Panics if the process has ended. Otherwise the benchmark would wait forever for its requests.
    pub fn assert_alive(&mut self) {
        if let Some(exit) = self.child.try_wait().expect("the process is our child") {
            panic!("the process ended: {exit}");
        }
    }

    /// Whether the process has ended. Panics if it failed.
    pub fn has_ended(&mut self) -> bool {
        let exit = self.child.try_wait().expect("the process is our child");
        assert!(exit.is_none_or(|exit| exit.success()), "the process failed");
        exit.is_some()
    }

    /// The resident memory. Returns `None` once the process has ended.
    pub fn memory_mib(&self) -> Option<f64> {
        self.memory("VmRSS")
    }

    /// The peak of the resident memory. Returns `None` once the process has ended.
    pub fn memory_peak_mib(&self) -> Option<f64> {
        self.memory("VmHWM")
    }

    fn memory(&self, name: &str) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1_024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

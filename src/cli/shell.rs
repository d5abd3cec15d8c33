//! `completions` and `man`: what a shell and `man` need, made from the definition of the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;

use super::output::{say, say_script};
use super::{Arguments, Failure};

/// `optio-webhooks completions`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  optio-webhooks completions bash > /usr/share/bash-completion/completions/optio-webhooks
  optio-webhooks completions zsh > /usr/local/share/zsh/site-functions/_optio-webhooks
  optio-webhooks completions fish > ~/.config/fish/completions/optio-webhooks.fish")]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

/// `optio-webhooks man`
#[derive(clap::Args)]
#[command(after_help = "Example:
  optio-webhooks man /usr/local/share/man/man1")]
pub struct Man {
    /// The folder to write to. It is created if it is missing.
    folder: PathBuf,
}

fn command() -> Command {
    let mut command = <Arguments as clap::CommandFactory>::command();
    command.build();
    command
}

impl Completions {
    /// Prints the completions. If nobody reads them, that is no failure.
    pub fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        let mut command = <Arguments as clap::CommandFactory>::command();
        clap_complete::generate(self.shell, &mut command, "optio-webhooks", &mut script);
        say_script(&String::from_utf8_lossy(&script));
        Ok(())
    }
}

impl Man {
    /// Writes a page for the program and one for each verb.
    ///
    /// # Errors
    /// A page can't be written.
    pub fn run(&self) -> Result<(), Failure> {
        std::fs::create_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        let written = self.write(&command(), "optio-webhooks")?;
        say(&format!("{written} pages written to {}", self.folder.display()));
        Ok(())
    }

    fn write(&self, command: &Command, name: &str) -> anyhow::Result<usize> {
        let path = self.folder.join(format!("{name}.1"));
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone().display_name(name.to_owned())).render(&mut page)?;
        std::fs::write(&path, page).with_context(|| path.display().to_string())?;
        let mut written = 1;
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            written += self.write(verb, &format!("{name}-{}", verb.get_name()))?;
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        <super::Arguments as clap::CommandFactory>::command().debug_assert();
    }
}

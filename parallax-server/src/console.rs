use std::fmt;
use std::io::{self, BufRead, Write};

use anstream::adapter::StripBytes;
use indicatif::MultiProgress;
use parallax_core::Escaped;

use crate::error::Failure;
use crate::text::{GOOD_TO_KNOW, WRONG, paint};

/// Where a command writes, and what is around it.
pub(crate) struct Console<'a> {
    /// Data. Takes styled text, and shows the styles only where they belong.
    pub(crate) out: &'a mut dyn Write,
    /// Everything else. Takes styled text too.
    pub(crate) err: &'a mut dyn Write,
    /// Who can be asked, if someone can.
    pub(crate) input: Option<&'a mut dyn BufRead>,
    /// The columns of the terminal that `out` is, if it is one.
    pub(crate) width: Option<u16>,
    /// Where progress is shown; hidden if nobody watches.
    pub(crate) bars: MultiProgress,
    /// Whether the process is this command's own, to listen to signals and install what is
    /// global.
    pub(crate) owns_process: bool,
}

impl Console<'_> {
    /// Prints data. A reader that has gone away has seen enough: that is no failure.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), Failure> {
        match self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush())
        {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
            _ => Ok(()),
        }
    }

    /// Says something beside the data.
    pub(crate) fn complain(&mut self, text: &str) {
        // Where nobody listens to complaints, this one is lost too.
        self.err
            .write_all(text.as_bytes())
            .and_then(|()| self.err.flush())
            .ok();
    }

    /// Says what went wrong, and what to do.
    pub(crate) fn explain(&mut self, failure: &Failure) {
        let (error, help) = (paint(WRONG, "error:"), paint(GOOD_TO_KNOW, "help:"));
        for (what, how) in failure.parts() {
            let (what, how) = (Escaped(what), Escaped(how));
            self.complain(&format!("{error} {what}\n  {help} {how}\n"));
        }
    }

    /// Asks whether to go on, if there is someone to ask. Anything but a yes is a no.
    pub(crate) fn ask(&mut self, question: &str) -> Option<bool> {
        self.input.is_some().then(|| self.complain(question));
        let mut answer = String::new();
        let read = self.input.as_mut()?.read_line(&mut answer);
        Some(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// A writer for text whose styles nobody wants.
pub(crate) struct Unstyled<'a> {
    writer: &'a mut dyn Write,
    strip: StripBytes,
}

impl<'a> Unstyled<'a> {
    pub(crate) fn new(writer: &'a mut dyn Write) -> Self {
        Self {
            writer,
            strip: StripBytes::new(),
        }
    }
}

impl Write for Unstyled<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        for part in self.strip.strip_next(text) {
            self.writer.write_all(part)?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress;

    #[test]
    fn only_yes_is_a_yes() {
        let answer = |mut input: &[u8]| {
            let mut asked = Vec::new();
            let mut console = Console {
                out: &mut io::sink(),
                err: &mut asked,
                input: Some(&mut input),
                width: None,
                bars: progress::no_bars(),
                owns_process: false,
            };
            let answer = console.ask("Really? ");
            (answer, String::from_utf8(asked).unwrap())
        };
        for (input, expected) in [
            ("y\n", true),
            ("yes\r\n", true),
            ("no\n", false),
            ("", false),
        ] {
            let (answer, asked) = answer(input.as_bytes());
            assert_eq!(
                (answer, asked.as_str()),
                (Some(expected), "Really? "),
                "{input:?}"
            );
        }
    }
}

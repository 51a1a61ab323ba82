//! One stream: reads the file, waits for it to grow, and notices when another file replaces it.

use std::{
    error::Error,
    io::{self, ErrorKind, SeekFrom},
    path::Path,
    time::Duration,
};

use downlink::{Event, EventType, InvalidField, SseSender};
use tokio::{
    fs::{self, File},
    io::{AsyncSeekExt as _, BufReader},
    time::sleep,
};

use crate::{
    lines::{Line, Lines},
    place::Place,
};

/// How often a stream checks the file after it has read the file to its end. Readers notice no
/// delay, and the checks cost almost nothing.
pub const POLL_EVERY: Duration = Duration::from_millis(250);

/// The maximum number of events that a stream reads ahead of its client. With the longest lines,
/// these are one to three megabytes.
pub const EVENTS_AHEAD_MAX: usize = 64;

/// The number of bytes at the end of the file that a new client gets: some hundred lines.
pub const START_BYTES_MAX: u64 = 64 * 1_024;

/// The reason why a stream ended.
type Ended = Box<dyn Error + Send + Sync>;

/// An open file.
struct Opened {
    lines: Lines<BufReader<File>>,
    /// The number that the system gives to this file.
    number: u64,
}

/// The change to a file that was read to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    /// No change. The file may still grow.
    None,
    /// The file is shorter than the part already read.
    Truncated,
    /// The name belongs to another file.
    Rotated,
}

/// Sends the lines of a file until the client has disconnected.
pub(crate) async fn follow(
    path: &Path,
    from: Option<Place>,
    sender: &SseSender,
) -> Result<(), Ended> {
    let mut opened = begin(path, from, sender).await?;
    loop {
        while let Some(line) = opened.lines.next().await? {
            send_line(sender, &opened, line).await?;
        }
        let change = opened.change(path).await?;
        if change == Change::None {
            wait(sender).await?;
            continue;
        }
        if change == Change::Rotated {
            // A program may have written to the old file just before it was moved.
            while let Some(line) = opened.lines.next().await? {
                send_line(sender, &opened, line).await?;
            }
            if let Some(line) = opened.lines.rest() {
                send_line(sender, &opened, line).await?;
            }
        }
        opened = open(path, sender).await?;
        tell(sender, &opened, change).await?;
    }
}

/// Opens the file at the client's last place, or near the end for a new client.
async fn begin(path: &Path, from: Option<Place>, sender: &SseSender) -> Result<Opened, Ended> {
    let opened = open(path, sender).await?;
    let bytes = opened.lines.file().get_ref().metadata().await?.len();
    let Some(from) = from else {
        let opened = opened.near_the_end(bytes).await?;
        let text = "The following lines are new or near the end of the file.";
        sender.send(event(&opened, text.into(), Some("start"))?).await?;
        return Ok(opened);
    };
    if from.file != opened.number {
        tell(sender, &opened, Change::Rotated).await?;
        Ok(opened)
    } else if from.offset > bytes {
        tell(sender, &opened, Change::Truncated).await?;
        Ok(opened)
    } else {
        Ok(opened.at(from.offset).await?)
    }
}

/// Opens the file at its beginning. Waits until the file exists.
async fn open(path: &Path, sender: &SseSender) -> Result<Opened, Ended> {
    loop {
        match File::open(path).await {
            Ok(file) => {
                let number = Place::beginning(&file.metadata().await?).file;
                return Ok(Opened { lines: Lines::new(BufReader::new(file), 0), number });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => wait(sender).await?,
            Err(error) => return Err(error.into()),
        }
    }
}

impl Opened {
    fn place(&self) -> Place {
        Place { file: self.number, offset: self.lines.offset() }
    }

    async fn at(self, offset: u64) -> io::Result<Self> {
        let mut file = self.lines.into_file();
        file.seek(SeekFrom::Start(offset)).await?;
        Ok(Self { lines: Lines::new(file, offset), ..self })
    }

    /// Moves to the beginning of a line near the end, so that a new client gets some recent lines.
    async fn near_the_end(self, bytes: u64) -> io::Result<Self> {
        let Some(offset) = bytes.checked_sub(START_BYTES_MAX).filter(|offset| *offset > 0) else {
            return Ok(self);
        };
        // The first line may be incomplete, so it is skipped. Reading starts one byte earlier: if
        // that byte ends a line, only this byte is skipped.
        let mut opened = self.at(offset - 1).await?;
        opened.lines.next().await?;
        Ok(opened)
    }

    async fn change(&self, path: &Path) -> io::Result<Change> {
        let here = match fs::metadata(path).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Change::None),
            metadata => metadata?,
        };
        Ok(if Place::beginning(&here).file != self.number {
            Change::Rotated
        } else if here.len() < self.lines.offset() {
            Change::Truncated
        } else {
            Change::None
        })
    }
}

/// Waits for the next check of the file, or until the client has disconnected.
async fn wait(sender: &SseSender) -> Result<(), Ended> {
    tokio::select! {
        () = sleep(POLL_EVERY) => Ok(()),
        () = sender.closed() => Err("the client has left".into()),
    }
}

async fn send_line(sender: &SseSender, opened: &Opened, line: Line) -> Result<(), Ended> {
    let event_type = line.is_cut.then_some("cut");
    Ok(sender.send(event(opened, line.text, event_type)?).await?)
}

/// Tells the client that the following lines start at the beginning of a file.
async fn tell(sender: &SseSender, opened: &Opened, change: Change) -> Result<(), Ended> {
    let (event_type, text) = match change {
        Change::Rotated => ("rotated", "Another file has this name now. Its lines follow:"),
        _ => ("truncated", "The file was truncated. Its lines follow from the beginning:"),
    };
    Ok(sender.send(event(opened, text.into(), Some(event_type))?).await?)
}

/// An event with the current place in the file as its id, so that a client resumes at this place.
fn event(opened: &Opened, text: String, event_type: Option<&str>) -> Result<Event, InvalidField> {
    let event = Event::new(text).id(opened.place().id()?);
    Ok(match event_type {
        Some(event_type) => event.event(EventType::new(event_type)?),
        None => event,
    })
}

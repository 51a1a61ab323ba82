//! One stream of one client. It reads the file, waits until the file grows, and notices when
//! another file replaces the file (a rotation) or when the file is truncated.

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

/// The time between two checks for changes when a stream has read the file to its end. Users hardly
/// notice such a short delay, and four checks a second cost almost nothing.
pub const POLL_EVERY: Duration = Duration::from_millis(250);

/// The maximum number of events that a stream reads ahead of its client. With the longest lines,
/// these events take 1 MiB of memory. If all bytes are invalid UTF-8, they take 3 MiB, because
/// U+FFFD has three bytes.
pub const EVENTS_AHEAD_MAX: usize = 64;

/// A new client gets at most this many bytes from the end of the file. This is enough for a few
/// hundred lines.
pub const START_BYTES_MAX: u64 = 64 * 1_024;

/// The reason why a stream ended.
type Ended = Box<dyn Error + Send + Sync>;

/// An open file.
struct Opened {
    lines: Lines<BufReader<File>>,
    /// The number that the system gives to this file.
    number: u64,
}

/// A change of the file after the stream has read it to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    /// No change, or the file has grown.
    None,
    /// The file is shorter than the part already read.
    Truncated,
    /// Another file has the file's name now.
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
            // A program may have written to the old file between the last read and the rotation.
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

    /// Moves to the beginning of a line near the end of the file, so that a new client gets some
    /// recent lines.
    async fn near_the_end(self, bytes: u64) -> io::Result<Self> {
        let Some(offset) = bytes.checked_sub(START_BYTES_MAX).filter(|offset| *offset > 0) else {
            return Ok(self);
        };
        // `offset` may be in the middle of a line. So reading starts one byte before `offset`, and
        // the rest of the line is skipped. If the byte before `offset` is a line feed, only this
        // byte is skipped.
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

/// Tells the client that the file was rotated or truncated. The following lines are from the
/// beginning of the file.
async fn tell(sender: &SseSender, opened: &Opened, change: Change) -> Result<(), Ended> {
    let (event_type, text) = match change {
        Change::Rotated => ("rotated", "Another file has this name now. Its lines follow:"),
        _ => ("truncated", "The file was truncated. Its lines follow from the beginning:"),
    };
    Ok(sender.send(event(opened, text.into(), Some(event_type))?).await?)
}

/// Makes an event whose id is the current place in the file. A client that has this id resumes at
/// this place.
fn event(opened: &Opened, text: String, event_type: Option<&str>) -> Result<Event, InvalidField> {
    let event = Event::new(text).id(opened.place().id()?);
    Ok(match event_type {
        Some(event_type) => event.event(EventType::new(event_type)?),
        None => event,
    })
}

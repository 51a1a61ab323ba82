//! The listening socket. The server binds a socket, or inherits one from the parent process.
//!
//! The server inherits a socket by systemd's socket activation. The variables `LISTEN_FDS`,
//! `LISTEN_PID` and `LISTEN_FDNAMES` describe the inherited sockets. Their descriptors begin at 3.
//! The server uses exactly one of these sockets. The socket stays open in the parent process while
//! servers start and end. While no server runs, new connections wait in the socket's queue and are
//! not refused.
//!
//! The server sets the permissions of a Unix socket's file before any client can connect. An admin
//! socket is for apps and operators, and each of its connections has every right. So without a
//! setting, only the owner can connect to it. The umask decides the permissions of any other
//! socket. The server replaces a file that a crashed server left behind. When the server ends, it
//! removes the file that it made. If another file has replaced this file, the server removes
//! nothing.

use std::io;

use anyhow::{Context as _, anyhow};
use downlink::serve::Listener;
use tokio::net::TcpListener;

use crate::{address::Address, config::Settings};

/// The maximum number of connections that wait until the server accepts them. Connections wait when
/// many clients reconnect at once, and while one server replaces another.
const BACKLOG: u32 = 4_096;

/// A listening TCP or Unix socket.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(unix::Bound),
}

impl Listening {
    /// Binds an address. `flag` is the flag that sets this address. Error messages name the flag.
    pub(super) async fn bind(
        address: &Address,
        flag: &str,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        match address {
            Address::Tcp(address) => bind_tcp(*address, flag).map(Self::Tcp),
            #[cfg(unix)]
            Address::Unix(path) => unix::Bound::new(path, flag, settings).await.map(Self::Unix),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(anyhow!("{flag} unix: needs a system with Unix sockets")),
        }
    }

    /// The address of the socket.
    pub(super) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => Listener::local_addr(listener).map(Address::Tcp),
            #[cfg(unix)]
            Self::Unix(bound) => bound.address(),
        }
    }
}

fn bind_tcp(address: std::net::SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = || {
        let socket = if address.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{address} is in use by another program; choose another address, such as {flag} {}:{}",
            address.ip(),
            address.port().checked_add(1).unwrap_or(8080)
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("{address} is not an address of this machine; choose another one with {flag}")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("this user may not listen on {address}; choose a port above 1023 with {flag}")
        }
        _ => anyhow::Error::new(error).context(format!("cannot listen on {address}")),
    })
}

/// An inherited socket that is not yet registered with the runtime.
#[derive(Debug)]
pub(super) enum Inherited {
    #[cfg(unix)]
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

impl Inherited {
    /// Takes the inherited socket that the environment variables describe. `None` if there is none.
    ///
    /// This function removes the variables, because a child process that sees them would use the
    /// socket too. Call this function while the program has only one thread.
    pub(super) fn take() -> anyhow::Result<Option<Self>> {
        #[cfg(unix)]
        return inherited::take().context("cannot use the inherited socket");
        #[cfg(not(unix))]
        Ok(None)
    }

    /// The address of the socket.
    pub(super) fn address(&self) -> io::Result<Address> {
        match self {
            #[cfg(unix)]
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            #[cfg(unix)]
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                Ok(Address::Unix(address.as_pathname().map(Into::into).unwrap_or_default()))
            }
        }
    }

    /// Registers the socket with the runtime.
    pub(super) fn listen(self) -> anyhow::Result<Listening> {
        match self {
            #[cfg(unix)]
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Listening::Tcp(TcpListener::from_std(listener)?))
            }
            #[cfg(unix)]
            Self::Unix(listener) => unix::Bound::inherited(listener).map(Listening::Unix),
        }
    }
}

#[cfg(unix)]
mod inherited {
    use std::{env, os::fd::AsFd, process};

    use anyhow::{Context as _, bail};
    use listenfd::ListenFd;

    use super::{BACKLOG, Inherited};

    /// The name that selects the server's socket if several sockets are inherited.
    const NAME: &str = "downlink";

    /// The descriptor of the first socket, as systemd defines it.
    const FIRST: usize = 3;

    pub(super) fn take() -> anyhow::Result<Option<Inherited>> {
        let Some(count) = count(variable("LISTEN_FDS")?, variable("LISTEN_PID")?)? else {
            return Ok(None);
        };
        let index = index(count, variable("LISTEN_FDNAMES")?.as_deref())?;
        let mut sockets = ListenFd::from_env();
        let unix = sockets.take_unix_listener(index);
        let taken = match unix {
            Ok(Some(listener)) => Inherited::Unix(listener),
            _ => match sockets.take_tcp_listener(index) {
                Ok(Some(listener)) => Inherited::Tcp(listener),
                _ => bail!("descriptor {} is not an open TCP or Unix stream socket", FIRST + index),
            },
        };
        match &taken {
            Inherited::Tcp(listener) => widen(listener, index)?,
            Inherited::Unix(listener) => widen(listener, index)?,
        }
        Ok(Some(taken))
    }

    fn variable(name: &str) -> anyhow::Result<Option<String>> {
        match env::var(name) {
            Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => bail!("{name} is not valid Unicode"),
        }
    }

    /// The number of sockets that this process inherits. `None` if there are none.
    pub(super) fn count(
        sockets: Option<String>,
        process: Option<String>,
    ) -> anyhow::Result<Option<usize>> {
        let Some(sockets) = sockets else { return Ok(None) };
        if let Some(process) = process {
            let recipient: u32 = process
                .parse()
                .with_context(|| format!("LISTEN_PID={process:?} is not a process id"))?;
            if recipient != process::id() {
                tracing::warn!(
                    "the sockets of LISTEN_FDS are ignored: they are for process {recipient}, and \
                     this is process {}",
                    process::id()
                );
                return Ok(None);
            }
        }
        let count: u16 = sockets
            .parse()
            .with_context(|| format!("LISTEN_FDS={sockets:?} is not a number of sockets"))?;
        Ok(Some(usize::from(count)).filter(|count| *count > 0))
    }

    /// The index of the server's socket among the inherited sockets.
    pub(super) fn index(count: usize, names: Option<&str>) -> anyhow::Result<usize> {
        if count == 1 {
            return Ok(0);
        }
        let named = names.into_iter().flat_map(|names| names.split(':').take(count));
        let mut ours = named.enumerate().filter(|(_, name)| *name == NAME);
        match (ours.next(), ours.next()) {
            (Some((index, _)), None) => Ok(index),
            _ => bail!(
                "LISTEN_FDS={count}, but the server uses only one socket: pass one socket, or \
                 name exactly one of them {NAME} in LISTEN_FDNAMES (FileDescriptorName= in systemd)"
            ),
        }
    }

    /// Sets the backlog of an inherited socket to [`BACKLOG`].
    fn widen(listener: impl AsFd, index: usize) -> anyhow::Result<()> {
        // macOS cannot report whether a socket listens. On macOS, the call of `listen` below makes
        // the socket listen if it does not listen yet.
        #[cfg(not(target_vendor = "apple"))]
        if !rustix::net::sockopt::socket_acceptconn(&listener)? {
            bail!("descriptor {} is a socket that is not listening", FIRST + index);
        }
        rustix::net::listen(listener, BACKLOG.cast_signed())
            .with_context(|| format!("cannot listen on descriptor {}", FIRST + index))
    }
}

#[cfg(unix)]
mod unix {
    use std::{
        fs::{self, Permissions},
        io,
        os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown},
        path::{Path, PathBuf},
    };

    use anyhow::{Context as _, bail};
    use tokio::net::{UnixListener, UnixSocket, UnixStream};

    use super::BACKLOG;
    use crate::{address::Address, config::Settings};

    /// A listening Unix socket.
    #[derive(Debug)]
    pub(in crate::command) struct Bound {
        listener: UnixListener,
        file: Option<File>,
    }

    impl Bound {
        pub(super) async fn new(
            path: &Path,
            flag: &str,
            settings: &Settings,
        ) -> anyhow::Result<Self> {
            remove_stale(path, flag).await?;
            let failed = || format!("cannot listen on unix:{}", path.display());
            let socket = UnixSocket::new_stream().with_context(failed)?;
            socket.bind(path).with_context(failed)?;
            // No client can connect before the call of `listen` below. So the permissions are set
            // before any client can connect.
            let permitted = permit(path, flag, settings);
            let listening = permitted.and_then(|()| socket.listen(BACKLOG).with_context(failed));
            let listener = listening.inspect_err(|_| {
                let _ = fs::remove_file(path);
            })?;
            Ok(Self { listener, file: Some(File::at(path)?) })
        }

        pub(super) fn inherited(
            listener: std::os::unix::net::UnixListener,
        ) -> anyhow::Result<Self> {
            listener.set_nonblocking(true)?;
            Ok(Self { listener: UnixListener::from_std(listener)?, file: None })
        }

        pub(super) fn address(&self) -> io::Result<Address> {
            let address = self.listener.local_addr()?;
            Ok(Address::Unix(address.as_pathname().map(Path::to_owned).unwrap_or_default()))
        }

        /// The socket, and a guard. When the guard is dropped, it removes the socket's file. An
        /// inherited socket has no guard.
        pub(in crate::command) fn into_parts(self) -> (UnixListener, Option<File>) {
            (self.listener, self.file)
        }
    }

    /// Sets the group and the permissions of a socket's file.
    ///
    /// Everyone who can connect to an admin socket has every right. So by default, only the owner
    /// of its file can connect. If `--listen` is also a Unix socket, the settings of mode and group
    /// apply only to the socket of `--listen`, because the purpose of these settings is to let a
    /// proxy connect.
    fn permit(path: &Path, flag: &str, settings: &Settings) -> anyhow::Result<()> {
        let shown = path.display();
        let is_admin = flag == "--admin-listen";
        let (mode, group) = match settings.listen {
            Address::Unix(_) if is_admin => (None, &None),
            _ => (settings.socket_mode, &settings.socket_group),
        };
        let mode = mode.or(is_admin.then_some(0o600));
        if let Some(group) = group {
            lchown(path, None, Some(group.id)).with_context(|| {
                format!(
                    "cannot give {shown} to the group {}; with --socket-group, choose a group \
                     that this user belongs to, or start the server as root",
                    group.name
                )
            })?;
        }
        if let Some(mode) = mode {
            fs::set_permissions(path, Permissions::from_mode(mode))
                .with_context(|| format!("cannot set the mode {mode:o} of {shown}"))?;
        }
        Ok(())
    }

    /// Removes the file of a socket that no process listens on. Any other file stays.
    async fn remove_stale(path: &Path, flag: &str) -> anyhow::Result<()> {
        let shown = path.display();
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot examine {shown}")),
            Ok(found) if !found.file_type().is_socket() => {
                bail!("{shown} exists and is not a socket; choose another path with {flag}")
            }
            Ok(_) => {}
        }
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).with_context(|| format!("cannot replace {shown}"))
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                bail!("{shown} belongs to another user; choose another path with {flag}")
            }
            // Another process listens on the socket. This includes the case that the connection
            // failed because the queue of that process is full.
            _ => bail!("{shown} is in use by another program; choose another path with {flag}"),
        }
    }

    /// The file of a socket that the server made. Dropping this value removes the file, unless
    /// another file has replaced it.
    #[derive(Debug)]
    pub(in crate::command) struct File {
        path: PathBuf,
        made: Identity,
    }

    impl File {
        fn at(path: &Path) -> io::Result<Self> {
            Ok(Self { path: path.to_owned(), made: identity(path)? })
        }
    }

    /// Device, inode and change time of a file. Device and inode do not suffice, because the system
    /// may give the inode of a removed file to the next new file.
    type Identity = [i128; 4];

    fn identity(path: &Path) -> io::Result<Identity> {
        let found = fs::symlink_metadata(path)?;
        let (dev, inode) = (found.dev().into(), found.ino().into());
        Ok([dev, inode, found.ctime().into(), found.ctime_nsec().into()])
    }

    impl Drop for File {
        fn drop(&mut self) {
            if identity(&self.path).is_ok_and(|found| found == self.made) {
                let _ = fs::remove_file(&self.path);
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::inherited::{count, index};

    fn counted(sockets: &str, process: Option<&str>) -> Result<Option<usize>, String> {
        let process = process.map(str::to_owned);
        count(Some(sockets.to_owned()), process).map_err(|error| error.to_string())
    }

    #[test]
    fn sockets_for_another_pid_are_ignored() {
        let ours = std::process::id().to_string();
        assert_eq!(count(None, Some(ours.clone())).unwrap(), None);
        assert_eq!(counted("1", Some(&ours)), Ok(Some(1)));
        assert_eq!(counted("2", None), Ok(Some(2)));
        assert_eq!(counted("0", None), Ok(None));
        assert_eq!(counted("1", Some("1")), Ok(None));
    }

    #[test]
    fn an_error_names_the_variable_and_its_value() {
        for wrong in ["one", "-1", "65536", "1 2"] {
            assert!(counted(wrong, None).unwrap_err().contains("LISTEN_FDS="), "{wrong}");
        }
        assert!(counted("1", Some("me")).unwrap_err().contains("LISTEN_PID=\"me\""));
    }

    #[test]
    fn the_name_downlink_selects_one_of_several_sockets() {
        assert_eq!(index(1, None).unwrap(), 0);
        assert_eq!(index(1, Some("web")).unwrap(), 0);
        assert_eq!(index(3, Some("web:downlink:x")).unwrap(), 1);
        for names in [None, Some("web:x"), Some("downlink:downlink"), Some("x:y:downlink")] {
            assert!(index(2, names).unwrap_err().to_string().contains("LISTEN_FDNAMES"));
        }
    }
}

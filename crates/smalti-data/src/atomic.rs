//! Whole files or none: every file this project writes is written beside its place, synced, and
//! renamed into it.
//!
//! A reader sees the old file or the new one, never a part, whatever happens to the writer. On an
//! error (a full disk, a missing folder) the old file is untouched, nothing is left behind, and the
//! error names the file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::DataError;

/// A file being written. It appears at its place with [`AtomicFile::commit`]; dropped before that,
/// it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    /// Dropped without being renamed, the temporary file is removed.
    writer: BufWriter<Temporary>,
}

/// Writes past [`tempfile::NamedTempFile`]'s own writer, whose errors name the temporary file that nobody
/// knows.
#[derive(Debug)]
struct Temporary(tempfile::NamedTempFile);

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_file_mut().flush()
    }
}

/// Writes `bytes` to `path`.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes to `path` what `fill` writes, buffered, without holding it in memory.
pub fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), DataError> {
    let mut file = AtomicFile::create(path)?;
    fill(&mut file).map_err(DataError::io("write", path))?;
    file.commit()
}

impl AtomicFile {
    /// Begins a file that will stand at `path`, in an existing folder.
    pub fn create(path: &Path) -> Result<Self, DataError> {
        let writer = BufWriter::with_capacity(
            1 << 16,
            Temporary(temporary_beside(path).map_err(DataError::io("write", path))?),
        );
        Ok(Self {
            path: path.to_owned(),
            writer,
        })
    }

    /// Syncs the file and puts it in its place, over an old one if there is.
    pub fn commit(self) -> Result<(), DataError> {
        let Self { path, writer } = self;
        let finish = || {
            let Temporary(temporary) = writer
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            temporary.as_file().sync_all()?;
            temporary.persist(&path).map_err(|error| error.error)?;
            sync_folder(folder_of(&path))
        };
        finish().map_err(DataError::io("write", &path))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn temporary_beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "the path ends in no file name");
    let name = path.file_name().ok_or_else(no_name)?;
    if path.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "there is a folder of this name",
        ));
    }
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    // Temporary files are private by default; this one becomes an ordinary file, to which the umask
    // applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder_of(path))
}

/// Makes the rename itself durable. Only Unix lets a folder be opened and synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn writes_and_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.bin");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.bin");
        write(&path, b"old").unwrap();
        let error = write_with(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no space left on device",
            ))
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot write {}: no space left on device", path.display())
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_and_a_folder_in_the_way_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing/file.bin");
        assert!(
            write(&missing, b"x")
                .unwrap_err()
                .to_string()
                .contains("missing/file.bin")
        );
        assert!(
            write(folder.path(), b"x")
                .unwrap_err()
                .to_string()
                .contains("folder of this name")
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_has_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write(&ours, b"x").unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}

//! Atomic file replacement: a temporary file, fsync, rename. `store` and `destination` call this.
//!
//! A file is never rewritten in place, so its directory must be writable, not the file itself. The new file is readable
//! by its owner only. A symbolic link stays; the file that it leads to is replaced.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Why a file cannot be read or replaced, and what to do. It does not contain the file's contents.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub(super) String);

/// Checks that a file, which need not exist, can be replaced. Changes nothing.
pub(super) fn check_writable(path: &Path) -> Result<(), FileError> {
    let error = |reason| FileError(format!("cannot write {}: {reason}", path.display()));
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    // `file_name` ignores a slash or a dot at the end.
    if name.is_empty() || !path.as_os_str().as_encoded_bytes().ends_with(name) {
        return Err(error("not a file path: add a file name"));
    }
    let target = resolve(path).map_err(|cause| write_error(path, &cause))?;
    if target.exists() && !target.is_file() {
        return Err(error("not a regular file: name another file"));
    }
    if is_mount_point(&target) {
        return Err(error(
            "it is a bind-mounted file; mount its directory instead",
        ));
    }
    NamedTempFile::new_in(directory_of(&target))
        .map(drop)
        .map_err(|cause| write_error(path, &cause))
}

/// Replaces the file as a whole or not at all. The new contents are on the disk when this returns.
pub(super) fn write(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    let written = || {
        let target = resolve(path)?;
        // Readable by its owner only from the start.
        let mut file = NamedTempFile::new_in(directory_of(&target))?;
        file.write_all(contents)?;
        file.as_file().sync_all()?;
        file.persist(&target)?;
        File::open(directory_of(&target))?.sync_all()
    };
    written().map_err(|cause| write_error(path, &cause))
}

/// Returns the absolute path of the file that `path` leads to. The file need not exist; its directory must.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        resolved => return resolved,
    }
    match fs::read_link(path) {
        Ok(target) => resolve(&directory_of(path).join(target)),
        // There is no file yet.
        Err(_) => {
            let directory = fs::canonicalize(directory_of(path))?;
            Ok(directory.join(path.file_name().unwrap_or_default()))
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Returns whether something is mounted at this very path, as when a container mounts a single file. Its directory may be
/// writable, but renaming to it fails. Where the list of mounts is missing, only the write itself shows the failure.
fn is_mount_point(target: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The fifth field of each line is the mount point.
    let mut mount_points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    mount_points.any(|mount_point| Path::new(mount_point) == target)
}

fn write_error(path: &Path, cause: &io::Error) -> FileError {
    FileError(format!(
        "cannot write {}: {cause}; files are replaced by renaming, so {} must be a writable directory",
        path.display(),
        directory_of(path).display()
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_path_that_cannot_be_replaced_is_refused_and_nothing_is_left_behind() {
        let directory = TempDir::new().unwrap();
        let check = |end: &str| check_writable(&directory.path().join(end));
        check("file").unwrap();
        symlink("circle", directory.path().join("circle")).unwrap();
        for (end, reason) in [
            ("file/", "not a file path"),
            ("file/.", "not a file path"),
            ("file/..", "not a file path"),
            ("../..", "not a file path"),
            ("missing/file", "must be a writable directory"),
            ("circle", "must be a writable directory"),
            ("/dev/null", "not a regular file"),
        ] {
            let error = check(end).unwrap_err().to_string();
            assert!(
                error.contains(end) && error.contains(reason),
                "{end}: {error}"
            );
        }
        let left = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 1, "the link");
    }

    #[test]
    fn a_path_without_a_directory_is_in_the_working_directory() {
        assert_eq!(directory_of(Path::new("file")), Path::new("."));
        assert_eq!(directory_of(Path::new("in/file")), Path::new("in"));
    }

    #[test]
    fn mount_points_are_recognized() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(Path::new("/proc/self")));
    }
}

use std::io;
use std::path::Path;

/// Whether this process, or thread, is kept to its folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confined {
    /// Whatever it tries.
    Fully,
    /// But for files elsewhere that could be cut: the kernel is older than Linux 6.2.
    Partly,
    /// The system has nothing for it, or does not let us use it.
    Not,
}

/// From now on this thread, and those that it starts, can write, make and remove files below `folders` only, and start no
/// program; there is no way back. By Landlock, where the kernel has it (Linux 5.13). Files that are open already, sockets
/// and reading are as before. A folder that is not there cannot be written to when it comes later, nor one that takes its
/// place.
///
/// # Errors
/// As the system says; then nothing has changed.
pub fn confine(folders: &[&Path]) -> io::Result<Confined> {
    #[cfg(target_os = "linux")]
    return landlock_writes(folders).map_err(io::Error::other);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folders;
        Ok(Confined::Not)
    }
}

#[cfg(target_os = "linux")]
fn landlock_writes(folders: &[&Path]) -> Result<Confined, landlock::RulesetError> {
    use landlock::{
        ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
        make_bitflags,
    };
    // What changes anything. Moves from folder to folder are forbidden by whatever Landlock does, and not needed.
    let changes = (AccessFs::from_write(ABI::V3) & !make_bitflags!(AccessFs::{Refer})) | AccessFs::Execute;
    // No links, pipes, sockets or devices: nobody has a use for them.
    let needed = make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | MakeDir | RemoveFile});
    let mut rules = Ruleset::default().handle_access(changes)?.create()?;
    for folder in folders {
        // One that cannot be opened is told of by whoever is to use it.
        if let Ok(folder) = PathFd::new(folder) {
            rules = rules.add_rule(PathBeneath::new(folder, needed))?;
        }
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Confined::Fully,
        RulesetStatus::PartiallyEnforced => Confined::Partly,
        RulesetStatus::NotEnforced => Confined::Not,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;

    use super::*;

    /// Bug class 1: the wall behind the walls.
    #[test]
    fn a_confined_thread_changes_nothing_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("inside"), root.path().join("outside"));
        for folder in [&inside, &outside] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("old"), "old").unwrap();
        }
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let before = File::options().write(true).open(outside.join("old")).unwrap();
        let (within, without) = (inside.clone(), outside.clone());
        let confined = std::thread::spawn(move || {
            let confined = confine(&[&within, &without.join("missing")]).unwrap();
            // What can be done in the folder, by a thread of a thread.
            std::thread::spawn(move || {
                fs::create_dir(within.join("new")).unwrap();
                fs::write(within.join("new/file.tmp"), "new").unwrap();
                fs::rename(within.join("new/file.tmp"), within.join("new/file")).unwrap();
                fs::write(within.join("old"), "n").unwrap();
                fs::remove_file(within.join("old")).unwrap();
                if confined == Confined::Not {
                    return confined;
                }
                let outer = without.as_path();
                let denied = |what: &str, tried: io::Result<()>| {
                    assert_eq!(tried.map_err(|e| e.kind()), Err(ErrorKind::PermissionDenied), "{what}");
                };
                denied("make a file", fs::write(outer.join("new"), "x"));
                denied("write to a file", File::options().write(true).open(outer.join("old")).map(drop));
                denied("make a folder", fs::create_dir(outer.join("folder")));
                denied("make a folder that was named", fs::create_dir(outer.join("missing")));
                denied("remove", fs::remove_file(outer.join("old")));
                denied("go by a link", fs::write(within.join("link/new"), "x"));
                denied("make a link", std::os::unix::fs::symlink("/", within.join("root")));
                let moved = fs::rename(within.join("new/file"), outer.join("file"));
                assert!(moved.is_err(), "moved out");
                denied("start a program", std::process::Command::new("/bin/sh").args(["-c", ":"]).status().map(drop));
                assert_eq!(fs::read(outer.join("old")).unwrap(), b"old", "reading is free");
                confined
            })
            .join()
            .unwrap()
        })
        .join()
        .unwrap();
        if confined == Confined::Not {
            eprintln!("skipped: this kernel has no Landlock");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        // Nobody else is confined, nor what was open.
        io::Write::write_all(&mut &before, b"new").unwrap();
        assert_eq!(fs::read(outside.join("old")).unwrap(), b"new");
    }
}

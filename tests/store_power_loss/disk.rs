//! A disk whose power goes: an ext4 image on a loop device, or copies made after each fsync.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use tempfile::TempDir;

use super::Killed;

/// Sparse: what is not written takes no room.
const IMAGE_BYTES: u64 = 192 << 20;

/// See the module.
pub(super) struct Disk {
    // In this order: unmounted before its image goes.
    mount: Option<Mount>,
    dir: TempDir,
}

impl Disk {
    pub(super) fn new() -> Self {
        // In memory if possible, to be fast.
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let dir = dir.unwrap();
        let mount = match make_image(dir.path()) {
            Ok(mount) => {
                say_once("an ext4 image on a loop device, copied while the writer is stopped");
                Some(mount)
            }
            Err(why) => {
                say_once(&format!("a copy of the files after each fsync ({why})"));
                fs::create_dir_all(dir.path().join("mount")).unwrap();
                None
            }
        };
        Self { mount, dir }
    }

    /// Where the store goes.
    pub(super) fn store(&self) -> PathBuf {
        self.dir.path().join("mount/store")
    }

    /// Where the writer copies its files to, if it has to.
    pub(super) fn copy_to(&self) -> Option<PathBuf> {
        self.mount.is_none().then(|| self.dir.path().join("copy/store"))
    }

    /// The disk as it is when the power goes now, while the writer is stopped.
    pub(super) fn after_power_loss(&self, writer: &mut Killed) -> Survived<'_> {
        writer.wait_stopped();
        if self.mount.is_none() {
            return Survived { _mount: None, dir: self.dir.path(), below: "copy/store" };
        }
        let image = self.dir.path().join("image");
        let copies = [self.dir.path().join("after"), self.dir.path().join("again")];
        // Write-back may be under way; what is seen twice is what is there.
        loop {
            for copy in &copies {
                run("cp", &["--sparse=always".as_ref(), image.as_ref(), copy.as_ref()]).unwrap();
            }
            if run("cmp", &["-s".as_ref(), copies[0].as_ref(), copies[1].as_ref()]).is_ok() {
                break;
            }
        }
        let mount = Mount::new(&copies[0], &self.dir.path().join("after-mount")).unwrap();
        Survived { _mount: Some(mount), dir: self.dir.path(), below: "after-mount/store" }
    }
}

/// What is left after a power loss.
pub(super) struct Survived<'d> {
    _mount: Option<Mount>,
    dir: &'d Path,
    below: &'static str,
}

impl Survived<'_> {
    pub(super) fn store(&self) -> PathBuf {
        self.dir.join(self.below)
    }
}

/// Unmounts when it goes, which frees the loop device too.
struct Mount(PathBuf);

impl Mount {
    fn new(image: &Path, at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        run(
            "mount",
            &["-t", "ext4", "-o", "loop"]
                .map(Path::new)
                .into_iter()
                .chain([image, at])
                .collect::<Vec<_>>(),
        )?;
        Ok(Self(at.into()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The processes that used it were waited for; if one is left all the same, it is let go.
        if run("umount", &[&self.0]).is_err() {
            let _ = run("umount", &[Path::new("-l"), &self.0]);
        }
    }
}

fn make_image(dir: &Path) -> Result<Mount, String> {
    if env::var("CONCORD_TEST_POWER_LOSS").is_ok_and(|method| method == "copy") {
        return Err("asked for".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("not root".to_owned());
    }
    let image = dir.join("image");
    let file = fs::File::create(&image).map_err(|error| error.to_string())?;
    file.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
    run("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), &image])?;
    Mount::new(&image, &dir.join("mount"))
}

fn run(program: &str, args: &[&Path]) -> Result<(), String> {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

fn say_once(method: &str) {
    static SAID: Once = Once::new();
    // To the terminal itself: what a test that passes prints is not shown.
    SAID.call_once(|| eprintln!("power loss is simulated with {method}"));
}

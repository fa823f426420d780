//! Images made of programs that are installed on this machine: no registry is
//! asked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::Engine;

/// The unprivileged user of these images.
const USER: &str = "65532";

/// A root file system in the making.
#[derive(Debug)]
pub struct RootFs {
    context: PathBuf,
}

impl RootFs {
    /// An empty one below `folder`, with a user `service`.
    ///
    /// # Panics
    /// The folder cannot be written.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        let made = Self { context: folder.join(format!("image-{name}")) };
        made.text(
            "/etc/passwd",
            &format!("root:x:0:0::/:/bin/false\nservice:x:{USER}:{USER}::/tmp:/bin/false\n"),
            0o644,
        );
        made.text("/etc/nsswitch.conf", "hosts: files dns\n", 0o644);
        // What is mounted there later takes this mode.
        let scratch = made.files().join("tmp");
        fs::create_dir_all(&scratch).expect("folders");
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o1777)).expect("mode");
        made
    }

    fn files(&self) -> PathBuf {
        self.context.join("files")
    }

    /// A file of this machine or a whole folder, under the same path.
    ///
    /// # Panics
    /// It cannot be copied.
    pub fn copy(&self, path: &Path) {
        let copied = Command::new("cp").args(["-rL", "--parents"]).arg(path).arg(self.files()).output().expect("cp");
        assert!(copied.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&copied.stderr));
    }

    /// A program and the libraries it is linked with, under the same paths.
    ///
    /// # Panics
    /// It cannot be copied.
    pub fn program(&self, path: &Path) {
        self.copy(path);
        self.libraries_of(path);
    }

    /// A program under another path, and the libraries it is linked with.
    ///
    /// # Panics
    /// It cannot be copied.
    pub fn program_as(&self, path: &Path, place: &str) {
        let place = self.files().join(place.trim_start_matches('/'));
        fs::create_dir_all(place.parent().expect("absolute paths have parents")).expect("folders");
        fs::copy(path, place).expect("program");
        self.libraries_of(path);
    }

    fn libraries_of(&self, path: &Path) {
        let listed = Command::new("ldd").arg(path).output().expect("ldd");
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
            self.copy(Path::new(library.trim_end_matches(':')));
        }
    }

    /// A file with this content.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn text(&self, path: &str, content: &str, mode: u32) {
        let place = self.files().join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().expect("absolute paths have parents")).expect("folders");
        fs::write(&place, content).expect("file");
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("mode");
    }

    /// Builds the image. It runs as an unprivileged user, who owns the folders
    /// `owned`; `more` are further lines of the recipe.
    ///
    /// # Panics
    /// The engine cannot build it.
    pub fn build(&self, engine: &Engine, tag: &str, owned: &[&str], more: &[&str]) {
        for folder in owned {
            let place = self.context.join("owned").join(folder.trim_start_matches('/'));
            fs::create_dir_all(&place).expect("folders");
            // A folder without a file keeps its owner only in some builders.
            fs::write(place.join(".keep"), "").expect("file");
        }
        fs::create_dir_all(self.context.join("owned")).expect("folder");
        let mut recipe = "FROM scratch\nCOPY files/ /\n".to_owned();
        recipe.push_str(&format!("COPY --chown={USER}:{USER} owned/ /\nUSER {USER}:{USER}\n"));
        recipe.push_str(&more.join("\n"));
        fs::write(self.context.join("Dockerfile"), recipe).expect("recipe");
        let context = self.context.display().to_string();
        let spec = engine.spec("docker", &["build", "--quiet", "--network", "none", "-t", tag, &context]);
        let _id = spec.env("DOCKER_BUILDKIT", "0").run().success();
    }
}

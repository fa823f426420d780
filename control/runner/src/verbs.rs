//! The closed list of verbs. Each looks at what there is before it touches it,
//! and repeated changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, KillContainerOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions, StopContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use bollard::{Docker, container::LogOutput};
use clawgate_shared::proto::runner::Cell;
use futures::StreamExt as _;

use crate::cell;
use crate::problem::{Problem, is_absent, is_so_already};
use crate::spec::{CellSpec, inside};

/// How long a bot may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);
/// Most bytes of a log that are read.
const MAX_LOG: usize = 1 << 20;
/// Most lines of a log that are asked for.
const MAX_LINES: u32 = 10_000;

/// One installation's cells on one engine.
#[derive(Clone, Debug)]
pub struct Cells {
    /// The engine.
    pub docker: Docker,
    /// The mark.
    pub installation: String,
}

fn other(error: &Error) -> Problem {
    Problem::of(error, Problem::Other)
}

fn create_failed(error: &Error) -> Problem {
    Problem::of(error, Problem::CreateFailed)
}

impl Cells {
    /// The bot's container, `None` when there is none.
    ///
    /// # Errors
    /// It is another's, or the engine does not answer.
    pub async fn look(&self, bot_id: &str) -> Result<Option<ContainerInspectResponse>, Problem> {
        let name = cell::name(bot_id);
        match self.docker.inspect_container(&name, None).await {
            Ok(made) => {
                let labels = made.config.as_ref().and_then(|config| config.labels.as_ref());
                let ours = cell::is_marked(labels, &self.installation, bot_id);
                if ours { Ok(Some(made)) } else { Err(Problem::NotOurs(format!("container {name}"))) }
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(other(&error)),
        }
    }

    async fn there(&self, bot_id: &str) -> Result<(String, ContainerInspectResponse), Problem> {
        let made =
            self.look(bot_id).await?.ok_or_else(|| Problem::Other("there is no container of this bot".to_owned()))?;
        Ok((made.id.clone().ok_or_else(|| Problem::Other("a container without an id".to_owned()))?, made))
    }

    /// What there is now.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub async fn view(&self, bot_id: &str) -> Result<Option<Cell>, Problem> {
        Ok(self.look(bot_id).await?.as_ref().and_then(cell::view))
    }

    /// Network, volume and container, not started. One of the same generation
    /// is left as it is; one of another is replaced, its state kept.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn create(&self, spec: &CellSpec) -> Result<(), Problem> {
        let bot_id = &spec.owner.bot_id;
        if let Some(made) = self.look(bot_id).await? {
            let same = cell::view(&made).is_some_and(|cell| cell.generation == spec.owner.generation);
            if same && cell::deviations(spec, &made).is_empty() {
                return Ok(());
            }
            self.remove_container(bot_id).await?;
        }
        let (image, digest) = self.image(&spec.image).await?;
        self.network(spec).await?;
        if spec.state_path.is_some() {
            self.volume(spec).await?;
            self.prepare(spec, &image).await?;
        }
        let options = CreateContainerOptionsBuilder::new().name(&cell::name(bot_id)).build();
        let body = cell::container(&self.installation, spec, &image, &digest);
        let made = self.docker.create_container(Some(options), body).await.map_err(|error| create_failed(&error))?;
        let finished = self.finish(&made.id, spec).await;
        if finished.is_err() {
            // Half a cell must not be taken for one.
            let _ = self.remove_container(bot_id).await;
        }
        finished
    }

    async fn finish(&self, id: &str, spec: &CellSpec) -> Result<(), Problem> {
        let made = self.docker.inspect_container(id, None).await.map_err(|error| create_failed(&error))?;
        let wrong = cell::deviations(spec, &made);
        if !wrong.is_empty() {
            return Err(Problem::CreateFailed(format!("the engine made it otherwise: {}", wrong.join(", "))));
        }
        let files = root_files(spec).map_err(|error| Problem::CreateFailed(error.to_string()))?;
        match files {
            Some(archive) => self.put(id, archive).await,
            None => Ok(()),
        }
    }

    /// Gives the state volume its owner and its files.
    async fn prepare(&self, spec: &CellSpec, image: &str) -> Result<(), Problem> {
        let name = cell::preparer_name(&spec.owner.bot_id);
        self.remove_preparer(&name).await?;
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let body = cell::preparer(&self.installation, spec, image);
        let made = self.docker.create_container(Some(options), body).await.map_err(|error| create_failed(&error))?;
        let put = match state_files(spec) {
            Ok(archive) => self.put(&made.id, archive).await,
            Err(error) => Err(Problem::CreateFailed(error.to_string())),
        };
        self.remove_preparer(&name).await?;
        put
    }

    async fn remove_preparer(&self, name: &str) -> Result<(), Problem> {
        match self.docker.inspect_container(name, None).await {
            Ok(made) if cell::is_preparer(&made, &self.installation) => {
                let options = RemoveContainerOptionsBuilder::new().force(true).v(false).build();
                gone(self.docker.remove_container(&made.id.unwrap_or_default(), Some(options)).await)
            }
            Ok(_) => Err(Problem::NotOurs(format!("container {name}"))),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(create_failed(&error)),
        }
    }

    async fn put(&self, id: &str, archive: Vec<u8>) -> Result<(), Problem> {
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let body = bollard::body_full(archive.into());
        self.docker.upload_to_container(id, Some(options), body).await.map_err(|error| create_failed(&error))
    }

    /// The id that a reference has now, fetched when it is missing, and its
    /// digest.
    async fn image(&self, reference: &str) -> Result<(String, String), Problem> {
        let found = match self.docker.inspect_image(reference).await {
            Err(error) if is_absent(&error) => {
                self.pull(reference).await?;
                self.docker.inspect_image(reference).await
            }
            found => found,
        };
        let found = found.map_err(|error| Problem::of(&error, Problem::ImageNotFound))?;
        let id = found.id.ok_or_else(|| Problem::ImageNotFound("the engine names no id".to_owned()))?;
        let digest = found
            .repo_digests
            .unwrap_or_default()
            .into_iter()
            .find_map(|full| Some(full.split_once('@')?.1.to_owned()));
        Ok((id.clone(), digest.unwrap_or(id)))
    }

    async fn pull(&self, reference: &str) -> Result<(), Problem> {
        let full = if reference.contains('@') || reference.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            reference.to_owned()
        } else {
            // Without a tag an engine would fetch all of them.
            format!("{reference}:latest")
        };
        let options = CreateImageOptionsBuilder::new().from_image(&full).build();
        let mut progress = std::pin::pin!(self.docker.create_image(Some(options), None, None));
        while let Some(step) = progress.next().await {
            step.map_err(|error| {
                if is_absent(&error) {
                    Problem::of(&error, Problem::ImageNotFound)
                } else {
                    Problem::of(&error, Problem::PullFailed)
                }
            })?;
        }
        Ok(())
    }

    async fn network(&self, spec: &CellSpec) -> Result<(), Problem> {
        let wanted = cell::network(&self.installation, spec);
        let bot_id = &spec.owner.bot_id;
        match self.docker.inspect_network(&wanted.name, None).await {
            Ok(made) if !cell::is_marked(made.labels.as_ref(), &self.installation, bot_id) => {
                return Err(Problem::NotOurs(format!("network {}", wanted.name)));
            }
            Ok(made) => {
                let subnet = |ipam: Option<bollard::models::Ipam>| {
                    let first = ipam.and_then(|ipam| ipam.config).and_then(|configs| configs.into_iter().next());
                    first.map(|config| (config.subnet, config.gateway))
                };
                if made.internal == Some(true) && subnet(made.ipam) == subnet(wanted.ipam.clone()) {
                    return Ok(());
                }
                self.docker.remove_network(&wanted.name).await.map_err(|error| create_failed(&error))?;
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(create_failed(&error)),
        }
        self.docker.create_network(wanted).await.map_err(|error| create_failed(&error))?;
        Ok(())
    }

    async fn volume(&self, spec: &CellSpec) -> Result<(), Problem> {
        let name = cell::name(&spec.owner.bot_id);
        match self.docker.inspect_volume(&name).await {
            Ok(made) if cell::is_marked(Some(&made.labels), &self.installation, &spec.owner.bot_id) => Ok(()),
            Ok(_) => Err(Problem::NotOurs(format!("volume {name}"))),
            Err(error) if is_absent(&error) => {
                let made = self.docker.create_volume(cell::volume(&self.installation, spec)).await;
                made.map(drop).map_err(|error| create_failed(&error))
            }
            Err(error) => Err(create_failed(&error)),
        }
    }

    /// Starts what was made for `generation`.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn start(&self, bot_id: &str, generation: u64) -> Result<(), Problem> {
        let (id, made) = self.there(bot_id).await?;
        if cell::view(&made).is_none_or(|cell| cell.generation != generation) {
            return Err(Problem::StartFailed("the container is of another generation".to_owned()));
        }
        match self.docker.start_container(&id, None::<StartContainerOptions>).await {
            Ok(()) => Ok(()),
            Err(Error::DockerResponseServerError { status_code: 304, .. }) => Ok(()),
            Err(error) => Err(Problem::of(&error, Problem::StartFailed)),
        }
    }

    /// Asks it to end, and makes it.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn stop(&self, bot_id: &str) -> Result<(), Problem> {
        let (id, _) = self.there(bot_id).await?;
        let grace = i32::try_from(GRACE.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(grace).build();
        match self.docker.stop_container(&id, Some(options)).await {
            Err(error) if !is_so_already(&error) => Err(other(&error)),
            _ => Ok(()),
        }
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn kill(&self, bot_id: &str) -> Result<(), Problem> {
        let (id, _) = self.there(bot_id).await?;
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        match self.docker.kill_container(&id, Some(options)).await {
            // 409: it does not run.
            Err(error) if !is_so_already(&error) => Err(other(&error)),
            _ => Ok(()),
        }
    }

    /// Stop, then start.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn restart(&self, bot_id: &str, generation: u64) -> Result<(), Problem> {
        self.stop(bot_id).await?;
        self.start(bot_id, generation).await
    }

    /// Container and network, and the state when asked to.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn remove(&self, bot_id: &str, with_state: bool) -> Result<(), Problem> {
        self.remove_container(bot_id).await?;
        let name = cell::name(bot_id);
        match self.docker.inspect_network(&name, None).await {
            Ok(made) if cell::is_marked(made.labels.as_ref(), &self.installation, bot_id) => {
                gone(self.docker.remove_network(&name).await)?;
            }
            Ok(_) => return Err(Problem::NotOurs(format!("network {name}"))),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(other(&error)),
        }
        if !with_state {
            return Ok(());
        }
        match self.docker.inspect_volume(&name).await {
            Ok(made) if cell::is_marked(Some(&made.labels), &self.installation, bot_id) => {
                gone(self.docker.remove_volume(&name, None::<RemoveVolumeOptions>).await)
            }
            Ok(_) => Err(Problem::NotOurs(format!("volume {name}"))),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(other(&error)),
        }
    }

    async fn remove_container(&self, bot_id: &str) -> Result<(), Problem> {
        let Some(made) = self.look(bot_id).await? else { return Ok(()) };
        let options = RemoveContainerOptionsBuilder::new().force(true).v(false).build();
        gone(self.docker.remove_container(&made.id.unwrap_or_default(), Some(options)).await)
    }

    /// The last lines of what it said, both streams.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn logs(&self, bot_id: &str, lines: u32) -> Result<Vec<u8>, Problem> {
        let (id, _) = self.there(bot_id).await?;
        let tail = lines.min(MAX_LINES).to_string();
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&tail).build();
        let mut said = std::pin::pin!(self.docker.logs(&id, Some(options)));
        let mut text = Vec::new();
        while let Some(part) = said.next().await {
            let (LogOutput::StdErr { message } | LogOutput::StdOut { message } | LogOutput::Console { message }) =
                part.map_err(|error| other(&error))?
            else {
                continue;
            };
            text.extend_from_slice(&message);
            // The newest lines are the ones that are wanted.
            let excess = text.len().saturating_sub(MAX_LOG);
            text.drain(..excess);
        }
        Ok(text)
    }

    /// Everything with the mark, with its probe's answer by container id.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn list(&self) -> Result<Vec<ContainerInspectResponse>, Problem> {
        let mark = format!("{}={}", cell::INSTALLATION, self.installation);
        let filters = HashMap::from([("label".to_owned(), vec![mark])]);
        let options =
            bollard::query_parameters::ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let rows = self.docker.list_containers(Some(options)).await.map_err(|error| other(&error))?;
        let mut made = Vec::with_capacity(rows.len());
        for id in rows.into_iter().filter_map(|row| row.id) {
            match self.docker.inspect_container(&id, None).await {
                Ok(one) => made.push(one),
                // It went meanwhile.
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(other(&error)),
            }
        }
        Ok(made)
    }
}

fn gone(done: Result<(), Error>) -> Result<(), Problem> {
    match done {
        Err(error) if !is_absent(&error) => Err(other(&error)),
        _ => Ok(()),
    }
}

fn header(spec: &CellSpec, kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(spec.user.0.into());
    header.set_gid(spec.user.1.into());
    header.set_size(size as u64);
    header
}

fn in_state<'a>(spec: &CellSpec, path: &'a str) -> Option<&'a str> {
    spec.state_path.as_deref().and_then(|folder| inside(folder, path))
}

/// The state's folder with its owner, and the files in it.
fn state_files(spec: &CellSpec) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folders = BTreeSet::from([format!("{}/", cell::PREPARED)]);
    let inner = || spec.files.0.iter().filter_map(|file| Some((in_state(spec, &file.0)?, file)));
    for (name, _) in inner() {
        let ends = name.match_indices('/').filter_map(|(end, _)| name.get(..end));
        folders.extend(ends.map(|folder| format!("{}/{folder}/", cell::PREPARED)));
    }
    for folder in folders {
        archive.append_data(&mut header(spec, tar::EntryType::Directory, 0o700, 0), folder, std::io::empty())?;
    }
    for (name, (_, content, mode)) in inner() {
        let header = &mut header(spec, tar::EntryType::Regular, *mode, content.len());
        archive.append_data(header, format!("{}/{name}", cell::PREPARED), content.as_slice())?;
    }
    archive.into_inner()
}

/// The files outside the state; `None`: there are none.
fn root_files(spec: &CellSpec) -> std::io::Result<Option<Vec<u8>>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut outside = spec.files.0.iter().filter(|file| in_state(spec, &file.0).is_none()).peekable();
    if outside.peek().is_none() {
        return Ok(None);
    }
    for (path, content, mode) in outside {
        let header = &mut header(spec, tar::EntryType::Regular, *mode, content.len());
        archive.append_data(header, path.trim_start_matches('/'), content.as_slice())?;
    }
    archive.into_inner().map(Some)
}

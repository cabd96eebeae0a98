//! Which files a command works on, and where their results go.

use std::path::{Path, PathBuf};

use crate::hints::Misuse;

/// One file and where its result goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// To be read.
    pub(crate) input: PathBuf,
    /// To be written.
    pub(crate) output: PathBuf,
}

/// The files that `inputs` name, folders searched for files that `wanted` likes. One file goes to `out`
/// itself; several, or a folder, go into the folder `out`, mirrored, with `rename` applied to names.
pub(crate) fn jobs(
    inputs: &[PathBuf],
    out: &Path,
    wanted: impl Fn(&Path) -> bool + Copy,
    rename: impl Fn(&Path) -> PathBuf,
) -> anyhow::Result<Vec<Job>> {
    if let [input] = inputs
        && !input.is_dir()
        && !out.is_dir()
    {
        return Ok(vec![Job {
            input: input.clone(),
            output: out.to_owned(),
        }]);
    }
    let mut jobs = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            let name = input.file_name().map(PathBuf::from).unwrap_or_default();
            jobs.push(Job {
                input: input.clone(),
                output: out.join(rename(&name)),
            });
            continue;
        }
        let mut found = Vec::new();
        collect(input, wanted, &mut found)?;
        for file in found {
            let below = file.strip_prefix(input).expect("found below it");
            jobs.push(Job {
                output: out.join(rename(below)),
                input: file.clone(),
            });
        }
    }
    if jobs.is_empty() {
        let names: Vec<String> = inputs
            .iter()
            .map(|input| input.display().to_string())
            .collect();
        anyhow::bail!(Misuse(format!(
            "there is nothing to convert in {}",
            names.join(", ")
        )));
    }
    jobs.sort_by(|a, b| a.output.cmp(&b.output));
    if let Some(pair) = jobs
        .windows(2)
        .find(|pair| pair[0].output == pair[1].output)
    {
        let (a, b, out) = (&pair[0].input, &pair[1].input, &pair[0].output);
        anyhow::bail!(Misuse(format!(
            "{} and {} would both be written to {}",
            a.display(),
            b.display(),
            out.display()
        )));
    }
    Ok(jobs)
}

/// Where the runs of a configuration file go unless asked otherwise: `runs/NAME` for `NAME.toml`.
pub(crate) fn run_folder(config: &Path) -> PathBuf {
    Path::new("runs").join(config.file_stem().unwrap_or(config.as_os_str()))
}

/// Makes the folder that a result goes into.
pub(crate) fn make_parent(output: &Path) -> anyhow::Result<()> {
    match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            std::fs::create_dir_all(parent).map_err(|error| {
                anyhow::Error::new(error).context(format!("cannot create {}", parent.display()))
            })
        }
        _ => Ok(()),
    }
}

fn collect(
    folder: &Path,
    wanted: impl Fn(&Path) -> bool + Copy,
    found: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).map_err(|error| {
        anyhow::Error::new(error).context(format!("cannot read {}", folder.display()))
    })?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.is_symlink() {
            collect(&path, wanted, found)?;
        } else if wanted(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether the ending is one of these, whatever its capitals.
pub(crate) fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or("");
    endings
        .iter()
        .any(|wanted| wanted.eq_ignore_ascii_case(ending))
}

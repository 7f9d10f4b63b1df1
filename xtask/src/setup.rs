//! `cargo xtask setup`: finds or installs what the tests need.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::command;

/// Command lines that start the tools.
pub(crate) struct Tools {
    pub(crate) nextest: String,
    pub(crate) deny: String,
    /// Scrapes what `/metrics` answers.
    pub(crate) prometheus: String,
    /// Prometheus's own checker of that, and of alerts.
    pub(crate) promtool: String,
    /// The directory of the official client's parser, in Python.
    pub(crate) prometheus_client: String,
    /// Lets system calls of a process fail.
    pub(crate) strace: String,
    /// The browser that looks at the dashboard.
    pub(crate) chromium: String,
    /// What drives it: a module for node.
    pub(crate) playwright: String,
    /// Where Python finds Grafana's models of dashboards.
    pub(crate) grafana_sdk: String,
    /// Where Python finds OpenTelemetry's messages.
    pub(crate) otlp_pythonpath: String,
    /// Where Python finds what asks the daemon all that its OpenAPI document allows, and more.
    pub(crate) schemathesis: String,
}

/// A cargo subcommand that does not come with Rust.
struct Tool {
    subcommand: &'static str,
    version: &'static str,
    /// Arguments of `cargo install` that leave out what is not used here.
    features: &'static str,
}

const NEXTEST: Tool = Tool {
    subcommand: "nextest",
    version: "0.9.151",
    // Without the code that downloads newer versions of itself.
    features: "--no-default-features --features default-no-update",
};

const DENY: Tool = Tool {
    subcommand: "deny",
    version: "0.20.2",
    features: "",
};

/// A package of Python, in a directory of its own.
struct Package {
    name: &'static str,
    version: &'static str,
    /// Arguments of `pip install` that leave out what is not used here.
    options: &'static str,
    /// What is there once it is fetched.
    file: &'static str,
}

/// The official client, which has a parser of each format.
const PROMETHEUS_CLIENT: Package = Package {
    name: "prometheus-client",
    version: "0.26.0",
    options: "--no-deps",
    file: "prometheus_client/openmetrics/parser.py",
};

/// OpenTelemetry's own messages: what is exported is decoded with them.
const OPENTELEMETRY_PROTO: Package = Package {
    name: "opentelemetry-proto",
    version: "1.45.2",
    options: "",
    file: "opentelemetry/proto",
};

/// What dashboards and panels are made of, as Grafana's developers have it: of the oldest version that
/// the dashboards are for.
const GRAFANA_SDK: Package = Package {
    name: "grafana-foundation-sdk",
    version: "1769699998!10.1.0",
    options: "--no-deps",
    file: "grafana_foundation_sdk/models/dashboard.py",
};

const SCHEMATHESIS: Package = Package {
    name: "schemathesis",
    version: "4.32.5",
    options: "",
    file: "schemathesis/cli",
};

/// libclang: as a package of Python it is one file that needs nothing else.
const LIBCLANG: Package = Package {
    name: "libclang",
    version: "18.1.1",
    options: "--no-deps",
    file: "clang/native/libclang.so",
};

/// Finds the tools, and builds those that are not there.
pub(crate) fn run() -> Result<Tools> {
    check_c_compiler()?;
    let [prometheus, promtool] = find_or_unpack_prometheus()?;
    Ok(Tools {
        nextest: NEXTEST.find_or_install()?,
        deny: DENY.find_or_install()?,
        prometheus,
        promtool,
        prometheus_client: PROMETHEUS_CLIENT.find_or_fetch()?,
        strace: find_or_install("strace", "strace")?,
        chromium: find_or_install("/usr/bin/chromium", "chromium")?,
        playwright: find_or_install_playwright()?,
        grafana_sdk: GRAFANA_SDK.find_or_fetch()?,
        otlp_pythonpath: OPENTELEMETRY_PROTO.find_or_fetch()?,
        schemathesis: SCHEMATHESIS.find_or_fetch()?,
    })
}

/// Finds or builds cargo-nextest alone.
pub(crate) fn find_nextest() -> Result<String> {
    NEXTEST.find_or_install()
}

/// Finds libclang, or fetches it into the target directory: `tests/fault` reads SQLite's header
/// with it. Returns the variables that its build needs.
pub(crate) fn find_or_fetch_libclang() -> Result<String> {
    let given = env::var_os("LIBCLANG_PATH").map(PathBuf::from);
    let directory = match given.or_else(installed_libclang) {
        Some(directory) => directory,
        None => {
            let fetched = LIBCLANG.find_or_fetch();
            let fetched = fetched.context("or install Debian's package libclang-dev")?;
            Path::new(&fetched).join("clang/native")
        }
    };
    // The headers that belong to a compiler; libclang's own are in another package.
    let headers = command::output("cc -print-file-name=include")?;
    Ok(format!(
        "LIBCLANG_PATH={} BINDGEN_EXTRA_CLANG_ARGS=-I{}",
        directory.display(),
        headers.trim()
    ))
}

/// Returns the directory of the system's libclang.
fn installed_libclang() -> Option<PathBuf> {
    let usr = |name| Path::new("/usr").join(name);
    let versions = fs::read_dir(usr("lib")).into_iter().flatten().flatten();
    let versions = versions.flat_map(|entry| [entry.path(), entry.path().join("lib")]);
    let mut directories = versions.chain([usr("lib"), usr("lib64"), usr("local/lib")]);
    directories.find(|directory| {
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        names.any(|name| name.starts_with("libclang.so") || name.starts_with("libclang-1"))
    })
}

/// Finds a tool, or installs Debian's package of it where that is allowed.
fn find_or_install(tool: &str, package: &str) -> Result<String> {
    if !is_there(tool) {
        println!("{tool} is not there; installing Debian's package {package}");
        command::run("apt-get update --quiet=2").ok();
        let install = "apt-get install --quiet=2 --yes --no-install-recommends";
        command::run(&format!("{install} {package}"))
            .with_context(|| format!("{tool} is missing; on Debian: apt-get install {package}"))?;
        ensure!(is_there(tool), "{tool} does not start");
    }
    Ok(tool.to_owned())
}

/// Finds playwright-core, or installs it into the target directory. It comes without a browser.
fn find_or_install_playwright() -> Result<String> {
    const VERSION: &str = "1.65.1";
    find_or_install("node", "nodejs")?;
    let root = env::current_dir()?.join(format!("target/tools/playwright-core-{VERSION}"));
    let module = root.join("node_modules/playwright-core/index.mjs");
    if !module.is_file() {
        find_or_install("npm", "npm")?;
        println!("playwright-core is not there; installing it from npm");
        command::run(&format!(
            "npm install --silent --no-audit --no-fund --ignore-scripts --prefix {} \
             playwright-core@{VERSION}",
            root.display()
        ))
        .context("playwright-core is missing")?;
    }
    println!("playwright-core {VERSION} (`{}`)", module.display());
    Ok(module.display().to_string())
}

/// Finds Prometheus and promtool, or unpacks them from Debian's package without installing that: the
/// package starts a Prometheus, which is not ours to start.
fn find_or_unpack_prometheus() -> Result<[String; 2]> {
    let root = env::current_dir()?.join("target/tools/prometheus");
    let installed = ["prometheus", "promtool"].map(str::to_owned);
    let unpacked =
        ["prometheus", "promtool"].map(|name| format!("{}/usr/bin/{name}", root.display()));
    let are_there = |tools: &[String; 2]| tools.iter().all(|tool| is_there(tool));
    for tools in [&installed, &unpacked] {
        if are_there(tools) {
            return Ok(tools.clone());
        }
    }
    println!("Prometheus is not there; unpacking it from Debian's package prometheus");
    fs::create_dir_all(&root)?;
    let unpack = || -> Result<()> {
        // As root, because a fresh machine may have no list of packages yet. Elsewhere the lists
        // that are there will do.
        command::run("apt-get update --quiet=2").ok();
        command::run("apt-get download --quiet=2 prometheus")
            .context("apt-get cannot download the package")?;
        // `apt-get download` writes to the current directory.
        for entry in fs::read_dir(".")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("prometheus_") && name.ends_with(".deb") {
                let unpacked = command::run(&format!("dpkg-deb -x {name} {}", root.display()));
                fs::remove_file(&name)?;
                return unpacked;
            }
        }
        anyhow::bail!("apt-get left no package")
    };
    unpack().context("Prometheus is missing; on Debian: apt-get install prometheus")?;
    ensure!(
        are_there(&unpacked),
        "{} does not start",
        unpacked.join(" or ")
    );
    Ok(unpacked)
}

impl Package {
    /// Returns the directory that Python must be told of.
    fn find_or_fetch(&self) -> Result<String> {
        let Self {
            name,
            version,
            options,
            file,
        } = self;
        // An epoch ends with what a shell would take for a piece of its history.
        let version_alone = version.rsplit('!').next().unwrap_or(version);
        let root = env::current_dir()?.join(format!("target/tools/{name}-{version_alone}"));
        if !root.join(file).exists() {
            println!("Python's package {name} is not there; fetching it");
            find_or_install("python3 -m pip", "python3-pip")?;
            let line = format!(
                "python3 -m pip install --quiet --no-warn-script-location {options} --target {} \
                 {name}=={version}",
                root.display()
            );
            println!("{line}");
            command::run(&line).with_context(|| format!("`{line}` failed"))?;
        }
        println!("{name} {version_alone} (`{}`)", root.display());
        Ok(root.display().to_string())
    }
}

impl Tool {
    fn find_or_install(&self) -> Result<String> {
        let Self {
            subcommand,
            version,
            features,
        } = self;
        // The version is part of the path, so that a new one here is built
        // although the old one is still there.
        let root = format!("target/tools/{subcommand}-{version}");
        let on_path = format!("cargo-{subcommand} {subcommand}");
        let in_target = format!("{root}/bin/{on_path}");
        if let Some(tool) = [&on_path, &in_target]
            .into_iter()
            .find(|tool| is_there(tool))
        {
            return Ok(tool.clone());
        }
        // Built, because crates.io is the one server that every build needs
        // anyway. Without optimisation, as the tool works for seconds only.
        let line = format!(
            "CARGO_PROFILE_DEV_DEBUG=false cargo install --debug --locked --root {root} \
             --version {version} {features} cargo-{subcommand}"
        );
        println!("cargo-{subcommand} is not there; building it takes some minutes\n{line}");
        command::run(&line).with_context(|| format!("`{line}` failed"))?;
        Ok(in_target)
    }
}

/// Whether `tool` starts. Says which version it is.
fn is_there(tool: &str) -> bool {
    let Ok(version) = command::output(&format!("{tool} --version")) else {
        return false;
    };
    println!("{} (`{tool}`)", version.lines().next().unwrap_or_default());
    true
}

/// SQLite is bundled, as C. On Windows the build finds Visual Studio by itself.
///
/// Only says what is missing: where there is no C compiler, xtask can hardly
/// have been linked, so the place that installs one is `.ci/run`.
fn check_c_compiler() -> Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    // A header, because Debian's compiler comes without the C library's.
    let probe = command::output(&format!("{compiler} -E -x c -include stdio.h /dev/null"));
    ensure!(
        probe.is_ok(),
        "`{compiler}` cannot compile C, and the bundled SQLite is C; \
         on Debian: apt-get install gcc libc6-dev"
    );
    Ok(())
}

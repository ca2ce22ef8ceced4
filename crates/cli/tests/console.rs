//! The console as people use it: in Chromium, over a store of real processes.

#[path = "common/browser.rs"]
mod browser;
mod common;

use std::fs;
use std::process::{Command, Output, Stdio};

use browser::Browser;
use common::{User, Whole, spawn, start, text};
use kit::{Program, TempFolder, bytes, eventually};

/// Where a server says that HTTP is.
fn url(server: &mut Program) -> String {
    server.wait_for_log("  HTTP");
    let line = server.log_so_far().iter().find(|line| line.contains("  HTTP")).expect("it was logged").clone();
    line.split_whitespace().next_back().expect("a URL").trim_end_matches('/').to_owned()
}

/// Runs a tool to its end.
fn tool(name: &str, words: &[&str]) -> Output {
    Command::new(name).args(words).stdin(Stdio::null()).output().expect("it is installed")
}

/// Whether the list of files has this name.
fn has(name: &str) -> String {
    format!("[...document.querySelectorAll('.row .text')].some((name) => name.textContent === {name:?})")
}

#[test]
fn files_are_uploaded_renamed_and_deleted_by_keyboard_alone() {
    let Some(mut browser) = Browser::start() else { return };
    let mut store = Whole::with_gateway(1);
    let content = bytes(1, 3 << 20);
    fs::write(store.local("picture.bin"), &content).unwrap();
    store.user.ok(&["mkdir", "/folder"]);
    store.user.with_input(&["put", "-", "/folder/inside"], b"inside");
    // The root leads a browser to the console.
    browser.open(&format!("{}/", url(&mut store.server)));
    browser.until(&has("folder"));
    browser.until("document.activeElement.getAttribute('role') === 'grid'");

    browser.press("n");
    browser.until("document.activeElement.id === 'name-field'");
    browser.types("new one");
    browser.press("Enter");
    browser.until(&has("new one"));
    browser.press("u");
    browser.until("document.querySelector('input[type=file]')");
    browser.choose("input[type=file]", &[text(&store.local("picture.bin"))]);
    browser.until(&has("picture.bin"));
    assert!(store.user.run(&["cat", "/picture.bin"]).stdout == content, "what was uploaded is what was chosen");

    // To the last entry, which gets another name.
    browser.until("document.activeElement.getAttribute('role') === 'grid'");
    browser.press("ArrowDown");
    (0..4).for_each(|_| browser.press("ArrowDown"));
    browser.until("document.querySelector('.row.cursor .text').textContent === 'picture.bin'");
    browser.press("F2");
    browser.until("document.activeElement.id === 'name-field' && document.activeElement.selectionEnd === 7");
    browser.types("image");
    browser.press("Enter");
    browser.until(&has("image.bin"));
    assert!(store.user.run(&["cat", "/image.bin"]).stdout == content);

    // A folder goes once it is said how much that is.
    browser.until("document.activeElement.getAttribute('role') === 'grid'");
    browser.press("Ctrl-a");
    browser.press("Delete");
    browser
        .until("document.querySelector('#removal-amount strong')?.textContent === '2 files and 2 folders, 3.00 MiB'");
    browser.press("Escape");
    browser.until("!document.querySelector('dialog') && document.activeElement.getAttribute('role') === 'grid'");
    assert_eq!(store.user.ok(&["ls", "/"]).lines().count(), 3, "Escape deletes nothing");
    browser.press("Delete");
    browser.until("document.activeElement.textContent === 'Delete'");
    browser.press("Enter");
    browser.until("document.querySelector('.empty').innerText.includes('This folder is empty')");
    assert_eq!(store.user.ok(&["ls", "/"]), "");
    assert_eq!(browser.errors, [""; 0], "no script has failed");
}

#[test]
fn what_is_dropped_on_a_folder_is_uploaded_there() {
    let Some(mut browser) = Browser::start() else { return };
    let mut store = Whole::with_gateway(1);
    let content = bytes(1, 1 << 20);
    store.user.ok(&["mkdir", "/folder"]);
    fs::create_dir_all(store.local("tree/deep")).unwrap();
    fs::create_dir(store.local("tree/empty")).unwrap();
    fs::write(store.local("tree/deep/inside.bin"), &content).unwrap();
    fs::write(store.local("tree/top.txt"), "top").unwrap();
    fs::write(store.local("alone.txt"), "alone").unwrap();
    browser.open(&format!("{}/.stevedore/console/", url(&mut store.server)));
    browser.until(&has("folder"));
    browser.drop_on("document.querySelector('.row')", &[text(&store.local("tree")), text(&store.local("alone.txt"))]);
    browser.until("document.querySelector('#uploads').textContent.includes('Uploaded 4 files')");
    assert_eq!(store.user.ok(&["ls", "/"]), "folder/\n");
    let listed = store.user.ok(&["find", "*", "/folder"]);
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    let expected = ["alone.txt", "tree/", "tree/deep/", "tree/deep/inside.bin", "tree/empty/", "tree/top.txt"];
    assert_eq!(listed, expected.map(|name| format!("/folder/{name}")));
    assert!(store.user.run(&["cat", "/folder/tree/deep/inside.bin"]).stdout == content);
    assert_eq!(browser.errors, [""; 0]);
}

#[test]
fn an_upload_that_is_cancelled_leaves_nothing() {
    let Some(mut browser) = Browser::start() else { return };
    let mut store = Whole::with_gateway(1);
    for name in ["first.bin", "second.bin"] {
        fs::write(store.local(name), bytes(1, 8 << 20)).unwrap();
    }
    browser.open(&format!("{}/.stevedore/console/", url(&mut store.server)));
    browser.until("document.activeElement.getAttribute('role') === 'grid'");
    browser.send_slowly(100_000);
    let files = [store.local("first.bin"), store.local("second.bin")];
    browser.drop_on("document.querySelector('.grid')", &files.each_ref().map(|file| text(file)));
    browser.until("document.querySelectorAll('#uploads progress').length > 2");
    // One by its own button, the other by the one for all.
    browser.value("document.querySelector('[aria-label=\"Cancel /first.bin\"]').click()");
    browser.until("document.querySelector('#uploads').textContent.includes('1 left out')");
    browser.value(
        "[...document.querySelectorAll('#uploads button')].find((it) => it.textContent === 'Cancel all').click()",
    );
    browser.until("document.querySelector('#uploads').textContent.includes('Uploaded 0 files · 2 left out')");
    browser.send_slowly(u64::MAX >> 12);
    assert_eq!(store.user.ok(&["ls", "/"]), "");
    assert_eq!(browser.errors, [""; 0]);
}

#[test]
fn a_name_full_of_markup_is_text_everywhere() {
    const NAME: &str = "<img src=x onerror=\"document.title='taken'\">&amp;<b>.txt";
    let Some(mut browser) = Browser::start() else { return };
    let mut store = Whole::with_gateway(1);
    let path = format!("/{NAME}");
    store.user.with_input(&["put", "-", &path], b"<script>document.title='taken'</script>");
    let url = url(&mut store.server);
    browser.open(&format!("{url}/.stevedore/console/"));
    browser.until(&has(NAME));
    // In a preview, in questions, among results, and among changes.
    browser.press("ArrowDown");
    browser.press("Enter");
    browser.until("document.querySelector('dialog pre')?.textContent === \"<script>document.title='taken'</script>\"");
    assert_eq!(browser.value("document.querySelector('dialog h2').textContent"), NAME);
    browser.press("Escape");
    browser.press("Delete");
    browser.until(&format!("document.querySelector('.names .text')?.textContent === {path:?}"));
    browser.press("Escape");
    browser.press("/");
    browser.types("onerror");
    browser.until(&format!("document.querySelector('.where') && {}", has(NAME)));
    browser.press("Escape");
    browser.press("g");
    browser.press("c");
    browser
        .until(&format!("[...document.querySelectorAll('.changes .text')].some((it) => it.textContent === {path:?})"));
    assert_eq!(browser.value("document.images.length"), 1, "only the icon");
    assert_ne!(browser.value("document.title"), "taken");
    assert_eq!(browser.errors, [""; 0], "nothing was tried that the policy refuses");
}

#[test]
fn an_admin_adds_a_user_and_says_what_it_may_do_by_keyboard_alone() {
    let Some(mut browser) = Browser::start() else { return };
    let mut store = Whole::with_gateway(1);
    let url = url(&mut store.server);
    let said = store.server.log_so_far().iter().find(|line| line.contains("user admin, password")).unwrap().clone();
    let password = said.split("password ").nth(1).unwrap().split(':').next().unwrap().to_owned();
    browser.log_in("admin", &password);
    browser.open(&format!("{url}/.stevedore/console/#users"));
    browser.until("document.querySelector('.user h2')?.textContent === 'admin'");
    browser.press("n");
    browser.until("document.activeElement.id === 'name-field'");
    browser.types("alice");
    browser.press("Enter");
    browser.until("document.querySelector('.secrets code')");
    let drawn = browser.value("document.querySelector('.secrets code').textContent");
    browser.press("Enter");
    browser.until("!document.querySelector('dialog') && document.querySelectorAll('.user').length === 2");
    assert!(!browser.value("document.body.textContent").as_str().unwrap().contains(drawn.as_str().unwrap()));
    browser.value("document.querySelector('[aria-label=\"User alice\"] button').focus()");
    browser.press("Enter");
    browser.until("document.activeElement.id === 'grant-path'");
    browser.types("/home/alice");
    browser.press("Enter");
    browser.until("document.querySelector('[aria-label=\"User alice\"] .right')?.textContent === 'read'");
    let listed = store.user.ok(&["user", "list"]);
    assert!(listed.contains("alice\n  read   /home/alice"), "{listed}");
    let may = |password: &str| {
        let login = format!("alice:{password}");
        let output =
            tool("curl", &["-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", &login, &format!("{url}/top")]);
        String::from_utf8(output.stdout).unwrap()
    };
    if kit::has_tools(&["curl"]) {
        assert_eq!((&*may(drawn.as_str().unwrap()), &*may("wrong")), ("403", "401"), "what was shown is its password");
    }
    // What is removed is asked for first.
    browser.value("document.querySelector('[aria-label=\"Remove alice\"]').focus()");
    browser.press("Enter");
    browser.until("document.querySelector('dialog')?.textContent.includes('The files stay')");
    browser.press("Enter");
    browser.until("document.querySelectorAll('.user').length === 1");
    assert!(!store.user.ok(&["user", "list"]).contains("alice"));
}

#[test]
fn a_dstore_that_dies_shows_while_the_page_is_open() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = TempFolder::new();
    let data = folder.path().join("controller");
    let _controller = start(&["controller", "--port", "0", "--sync", "never", "--grace", "1", "--data", text(&data)]);
    let user = User { cluster: data };
    let mut dstores: Vec<_> = ["1", "2", "3"]
        .map(|name| {
            let disk = folder.path().join(name);
            fs::create_dir(&disk).unwrap();
            fs::copy(user.cluster.join("cluster.toml"), disk.join("cluster.toml")).unwrap();
            let mut dstore =
                spawn(&["dstore", "--port", "0", "--sync", "never", "--host", name, "--data", text(&disk)]);
            dstore.wait_for_log("Dstore of the store");
            dstore
        })
        .into();
    user.ok(&["set", "replicas", "2"]);
    eventually("all have joined", || {
        let status = user.json(&["status", "--json"]);
        let dstores = status["dstores"].as_array().unwrap().clone();
        dstores.iter().filter(|dstore| dstore["state"] == "present" && dstore["total_bytes"] != 0).count() == 3
    });
    for number in 0..20 {
        user.with_input(&["put", "-", &format!("/{number}")], &bytes(number, 10_000));
    }
    let mut gateway = spawn(&["gateway", "--cluster", text(&user.cluster.join("client.toml")), "--http", "0"]);
    browser.open(&format!("{}/.stevedore/console/#cluster", url(&mut gateway)));
    browser.until("document.querySelector('.verdict.good strong')?.textContent === 'All is well'");
    browser
        .until("[...document.querySelectorAll('.state-of')].filter((it) => it.textContent === 'present').length === 3");
    // Nothing is loaded again: this stays what it is.
    browser.value("window.isTheSamePage = true");
    dstores.pop().expect("one").kill();
    browser.until("document.querySelector('.verdict.bad')");
    browser.until("document.querySelector('tr.away .state-of')?.textContent === 'away'");
    browser.until("document.querySelector('.problems').textContent.includes('Dstore')");
    browser.until("document.querySelector('#health.bad')");
    // What it had is copied to the others, and the page says so once that is certain.
    eventually("all is healed", || user.json(&["status", "--json"])["too_few_copies"] == 0);
    browser.until("document.querySelector('.cluster') && !document.body.innerText.includes('too few copies')");
    assert_eq!(browser.value("window.isTheSamePage"), true);
    assert_eq!(browser.errors, [""; 0]);
}

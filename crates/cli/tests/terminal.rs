//! The program as a person at a terminal has it: questions, names that deceive, a prompt with completion.

mod common;

use common::{Lone, OnTerminal};

#[test]
fn what_goes_is_said_and_asked_on_a_terminal() {
    let store = Lone::start();
    let user = &store.user;
    user.ok(&["mkdir", "-p", "/a/b", "/c"]);
    for (answer, is_removed) in [("n\n", false), ("\n", false), ("y\n", true)] {
        let mut asked = OnTerminal::start(user.command(&["rm", "-r", "/a"]));
        asked.shows("/a goes, with 0 files");
        asked.shows("Go ahead? [y/N]");
        asked.types(answer);
        assert_eq!(asked.wait().success(), is_removed, "{answer:?}");
        assert_eq!(user.run(&["stat", "/a"]).status.success(), !is_removed, "{answer:?}");
    }
    let mut asked = OnTerminal::start(user.command(&["format", "depot"]));
    asked.shows("everything in the store \"depot\" goes");
    asked.types("yes\n");
    assert!(asked.wait().success());
    assert_eq!(user.ok(&["ls", "/"]), "");
}

#[test]
fn names_that_deceive_are_escaped_on_a_terminal_only() {
    let store = Lone::start();
    let user = &store.user;
    let name = "/cod.\u{202e}gpj\u{1b}[2J.exe";
    user.ok(&["mkdir", name]);
    for command in ["ls", "tree", "du"] {
        let mut listed = OnTerminal::start(user.command(&[command]));
        listed.shows("cod.\\u{202e}gpj\\u{1b}[2J.exe/");
        assert!(listed.wait().success());
        let screen = listed.screen();
        assert!(!screen.contains('\u{202e}') && !screen.contains('\u{1b}'), "{command}: {screen:?}");
    }
    assert_eq!(user.ok(&["ls"]), format!("{}/\n", &name[1..]), "a pipe gets it as it is");
    let mut failing = OnTerminal::start(user.command(&["stat", "/\u{1b}[2J"]));
    failing.shows("/\\u{1b}[2J: not found");
    assert!(!failing.wait().success());
}

#[test]
fn tab_completes_paths_at_the_prompt_and_up_is_the_last_line() {
    let store = Lone::start();
    let user = &store.user;
    user.ok(&["mkdir", "-p", "/photos of 2026/summer"]);
    let mut shell = OnTerminal::start(user.command(&["shell"]));
    shell.shows("depot:/> ");
    shell.types("cd ph\t\r");
    shell.shows("depot:/photos of 2026> ");
    shell.types("mkdir winter\rls\r");
    shell.shows("winter/");
    shell.types("cd su\t\rpwd\r");
    shell.shows("depot:/photos of 2026/summer> ");
    shell.shows("/photos of 2026/summer\r\n");
    shell.types("mkdir once\r\u{1b}[A\r");
    shell.shows("/photos of 2026/summer/once: it exists already");
    shell.types("rm -r once\r");
    shell.shows("Go ahead? [y/N]");
    shell.types("y\r");
    shell.types("quit\r");
    assert!(shell.wait().success());
    assert_eq!(user.ok(&["ls", "/photos of 2026/summer"]), "");
}

#[test]
fn a_pipe_of_commands_ends_with_the_last_failure() {
    let store = Lone::start();
    let user = &store.user;
    let output = user.with_input(&["shell"], b"mkdir /a\nmkdir /a\ncd a\nmkdir b\npwd\n");
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/a\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/a: it exists already"));
    assert_eq!(user.ok(&["ls", "/a"]), "b/\n");
    assert!(user.with_input(&["shell"], b"ls\nquit\nmkdir /late\n").status.success());
    assert_eq!(user.fails(&["stat", "/late"]).0, 3);
}

#[test]
fn status_is_shown_again_and_again_until_it_is_interrupted() {
    let store = Lone::start();
    let user = &store.user;
    let watching = OnTerminal::start(user.command(&["status", "--watch"]));
    watching.shows("0 entries");
    user.ok(&["mkdir", "/a"]);
    watching.shows("1 entry");
}

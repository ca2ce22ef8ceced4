//! Chromium without a window, told what to do over its debugging pipe.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use base64ct::{Base64, Encoding};
use kit::{PATIENCE, TempFolder, comes_true};
use serde_json::{Value, json};

/// A browser with one page.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    last: u64,
    /// What scripts have thrown, and what the browser has refused.
    pub errors: Vec<String>,
    _profile: TempFolder,
}

/// Keys that are no characters, and what browsers call them.
const KEYS: [(&str, u32); 8] = [
    ("Enter", 13),
    ("Escape", 27),
    ("Tab", 9),
    ("Delete", 46),
    ("F2", 113),
    ("ArrowDown", 40),
    ("ArrowUp", 38),
    ("Backspace", 8),
];

impl Browser {
    /// Starts it; `None`, and says so, if it is not installed.
    pub fn start() -> Option<Self> {
        if !kit::has_tools(&["chromium"]) {
            return None;
        }
        let profile = TempFolder::new();
        // It reads commands from descriptor 3 and writes to 4, each message with a zero byte behind it.
        let script = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                      --remote-debugging-pipe --user-data-dir=\"$1\" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(profile.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let commands = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, messages) = channel();
        // Ends with the browser.
        thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                if sender.send(serde_json::from_slice(&message).expect("JSON")).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let (session, errors) = (String::new(), Vec::new());
        let mut browser = Self { child, commands, messages, session, last: 0, errors, _profile: profile };
        let targets = browser.ask("Target.getTargets", json!({}));
        let pages = targets["targetInfos"].as_array().expect("targets");
        let page = pages.iter().find(|target| target["type"] == "page").expect("a page");
        let attached = browser.ask("Target.attachToTarget", json!({ "targetId": page["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "DOM"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Has it do something; what it answers.
    #[track_caller]
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_empty() {
            command["sessionId"] = self.session.as_str().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).expect("it takes commands");
        loop {
            let mut message = match self.messages.recv_timeout(PATIENCE) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => panic!("{method}: no answer"),
                Err(RecvTimeoutError::Disconnected) => panic!("{method}: the browser has ended"),
            };
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.errors.push(message["params"]["exceptionDetails"].to_string()),
                Some("Log.entryAdded") if message["params"]["entry"]["source"] == "security" => {
                    self.errors.push(message["params"]["entry"].to_string());
                }
                _ => {}
            }
        }
    }

    /// Has each request say so, as if a person had logged in.
    pub fn log_in(&mut self, user: &str, password: &str) {
        let login = Base64::encode_string(format!("{user}:{password}").as_bytes());
        self.ask("Network.enable", json!({}));
        self.ask("Network.setExtraHTTPHeaders", json!({ "headers": { "Authorization": format!("Basic {login}") } }));
    }

    pub fn open(&mut self, url: &str) {
        self.ask("Page.navigate", json!({ "url": url }));
    }

    /// The value of an expression of JavaScript.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let mut answer = self.ask("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        // While a page is loaded, what belongs to it may not be there yet.
        let guarded = format!("(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()");
        if !comes_true(PATIENCE, || self.value(&guarded) == true) {
            let text = self.value("document.body.innerText");
            panic!(
                "not within {PATIENCE:?}: {expression}; errors: {:?}; the page:\n{}",
                self.errors,
                text.as_str().unwrap_or("")
            );
        }
    }

    /// Presses a key, with Control if it is written `Ctrl-a`.
    pub fn press(&mut self, key: &str) {
        let (modifiers, key) = key.strip_prefix("Ctrl-").map_or((0, key), |key| (2, key));
        let named = KEYS.iter().find(|(name, _)| *name == key).map(|(_, code)| *code);
        let code = named.unwrap_or_else(|| u32::from(key.to_ascii_uppercase().as_bytes()[0]));
        let mut event = json!({ "type": "keyDown", "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers });
        if key == "Enter" {
            event["text"] = "\r".into();
        } else if named.is_none() && modifiers == 0 {
            event["text"] = key.into();
        }
        self.ask("Input.dispatchKeyEvent", event.clone());
        event["type"] = "keyUp".into();
        event.as_object_mut().expect("an object").remove("text");
        self.ask("Input.dispatchKeyEvent", event);
    }

    /// Types text where the focus is.
    pub fn types(&mut self, text: &str) {
        self.ask("Input.insertText", json!({ "text": text }));
    }

    /// Chooses a local file in a file field.
    pub fn choose(&mut self, selector: &str, files: &[&str]) {
        let document = self.ask("DOM.getDocument", json!({}));
        let found =
            self.ask("DOM.querySelector", json!({ "nodeId": document["root"]["nodeId"], "selector": selector }));
        self.ask("DOM.setFileInputFiles", json!({ "nodeId": found["nodeId"], "files": files }));
    }

    /// Drags local files and folders to an element, and drops them there.
    pub fn drop_on(&mut self, element: &str, files: &[&str]) {
        let middle = format!(
            "(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({element}.getBoundingClientRect())"
        );
        let at = self.value(&middle);
        let data = json!({ "items": [], "files": files, "dragOperationsMask": 1 });
        for step in ["dragEnter", "dragOver", "drop"] {
            self.ask("Input.dispatchDragEvent", json!({ "type": step, "x": at[0], "y": at[1], "data": data }));
        }
    }

    /// Has it send no more than so many bytes a second.
    pub fn send_slowly(&mut self, bytes_per_second: u64) {
        self.ask("Network.enable", json!({}));
        let conditions =
            json!({ "offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second });
        self.ask("Network.emulateNetworkConditions", conditions);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

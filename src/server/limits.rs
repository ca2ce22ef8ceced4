//! What the system allows a server.

/// Raises this process's limit on descriptors as far as its user may: to the hard limit. Many systems start programs with
/// 1,024, and a server needs one for each connection. For the main of a program, before it starts anything.
///
/// Where that is not possible the limit stays as it is: the server takes fewer connections at a time.
pub fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let maximum = getrlimit(Resource::Nofile).maximum;
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

//! Control groups: which files hold the memory limits of this process.
//!
//! Owns the reading of `/proc/self/mountinfo` and `/proc/self/cgroup`, as texts:
//! cgroups(7), proc(5). Refuses to open files; the [machine](super::machine)
//! does.

use std::path::{Path, PathBuf};

/// The files with limits of memory that hold for a process, from its own group
/// up to the mount. Some may not exist, such as those of the root.
pub(super) fn limit_files(mountinfo: &str, groups: &str) -> Vec<PathBuf> {
    let mounts = mountinfo.lines().filter_map(Mount::parse);
    let mounted = mounts.filter_map(|mount| {
        let group = mount.hierarchy.group_in(groups)?;
        Some(mount.limit_files(group))
    });
    mounted.flatten().collect()
}

/// The limit in such a file; `None` for `max`, or for what is no number.
pub(super) fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A hierarchy of groups that limits memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hierarchy {
    V1,
    V2,
}

impl Hierarchy {
    /// Files in the folder of each group. Above `memory.high` a process is slowed
    /// down so much that it counts as a limit too.
    const fn files(self) -> &'static [&'static str] {
        match self {
            Self::V1 => &["memory.limit_in_bytes"],
            Self::V2 => &["memory.max", "memory.high"],
        }
    }

    /// The group of the process, out of `/proc/self/cgroup`: lines of number,
    /// controllers and path, such as `4:memory:/docker/1f` and `0::/user.slice`.
    fn group_in(self, groups: &str) -> Option<&str> {
        let lines = groups.lines().filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((number, controllers, path))
        });
        let mut is_meant = lines.filter(|&(number, controllers, _)| match self {
            Self::V1 => controllers.split(',').any(|name| name == "memory"),
            Self::V2 => number == "0" && controllers.is_empty(),
        });
        is_meant.next().map(|(_, _, path)| path)
    }
}

/// One mount of such a hierarchy.
#[derive(Debug)]
struct Mount {
    hierarchy: Hierarchy,
    /// The group that stands at the mount point.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Parses a line such as
    /// `35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`.
    fn parse(line: &str) -> Option<Self> {
        let (mounted, filesystem) = line.split_once(" - ")?;
        let mut mounted = mounted.split(' ').skip(3);
        let (root, point) = (mounted.next()?, mounted.next()?);
        let mut filesystem = filesystem.split(' ');
        let (kind, _, options) = (filesystem.next()?, filesystem.next()?, filesystem.next()?);
        let hierarchy = match kind {
            "cgroup2" => Hierarchy::V2,
            "cgroup" if options.split(',').any(|option| option == "memory") => Hierarchy::V1,
            _ => return None,
        };
        Some(Self {
            hierarchy,
            root: unescaped(root).into(),
            point: unescaped(point).into(),
        })
    }

    /// The limits of a group and of all above it that the mount shows.
    fn limit_files(&self, group: &str) -> Vec<PathBuf> {
        // In a namespace a group may be outside of what is mounted, and its path
        // then begins with `/..`. The mount point is what is left to look at.
        let below = Path::new(group).strip_prefix(&self.root).unwrap_or(Path::new(""));
        let is_inside = !below.starts_with("..");
        let own = if is_inside {
            self.point.join(below)
        } else {
            self.point.clone()
        };
        let folders = own
            .ancestors()
            .take_while(|folder| folder.starts_with(&self.point));
        let files = self.hierarchy.files();
        folders
            .flat_map(|folder| files.iter().map(|file| folder.join(file)))
            .collect()
    }
}

/// Undoes the escapes of mountinfo: a backslash and three octal digits for a
/// blank and the like.
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let digits = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(mountinfo: &str, groups: &str) -> Vec<String> {
        let files = limit_files(mountinfo, groups);
        files.iter().map(|file| file.display().to_string()).collect()
    }

    /// Recorded on a machine with both versions, the memory in the first.
    const BOTH: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn every_group_on_the_way_up_is_looked_at() {
        let groups = "9:name=systemd:/\n4:memory:/pods/one\n1:cpu:/other\n0::/\n";
        assert_eq!(
            files(BOTH, groups),
            [
                "/sys/fs/cgroup/memory/pods/one/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/pods/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/unified/memory.max",
                "/sys/fs/cgroup/unified/memory.high",
            ]
        );
    }

    #[test]
    fn a_service_of_systemd_has_the_limits_of_its_slices() {
        let mountinfo = "29 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - \
                         cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        let found = files(mountinfo, "0::/system.slice/highwater.service\n");
        assert_eq!(found.len(), 6);
        assert_eq!(
            found[0],
            "/sys/fs/cgroup/system.slice/highwater.service/memory.max"
        );
        assert_eq!(found[3], "/sys/fs/cgroup/system.slice/memory.high");
        assert_eq!(found[4], "/sys/fs/cgroup/memory.max");
    }

    #[test]
    fn a_container_without_a_namespace_finds_its_group_at_the_mount_point() {
        let mountinfo = "1122 1111 0:31 /docker/1f2e /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime \
                         master:15 - cgroup cgroup rw,memory\n";
        assert_eq!(
            files(mountinfo, "11:memory:/docker/1f2e\n"),
            ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        assert_eq!(
            files(mountinfo, "11:memory:/docker/1f2e/inner\n").len(),
            2,
            "a group below it"
        );
        assert_eq!(
            files(mountinfo, "11:memory:/elsewhere\n").len(),
            1,
            "not a part of what is mounted"
        );
    }

    #[test]
    fn inside_a_namespace_the_root_is_the_own_group() {
        let mountinfo = "680 679 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n";
        assert_eq!(
            files(mountinfo, "0::/\n"),
            ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.high"]
        );
        assert_eq!(
            files(mountinfo, "0::/../other\n"),
            ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.high"]
        );
        // Mounted before the namespace was made.
        let mountinfo = "41 31 0:38 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(files(mountinfo, "0::/\n").len(), 2);
    }

    #[test]
    fn a_mount_point_with_a_blank_is_found_and_other_lines_are_left_out() {
        let mountinfo = "\
1 2 0:3 / /with\\040blank rw - cgroup2 none rw
1 2 0:4 / / rw - ext4 /dev/vda rw
no mount at all
";
        assert_eq!(files(mountinfo, "0::/a\n")[0], "/with blank/a/memory.max");
        assert_eq!(files(mountinfo, "").len(), 0);
    }

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!(parse_limit("268435456\n"), Some(268_435_456));
        assert_eq!(
            parse_limit("9223372036854771712\n"),
            Some(9_223_372_036_854_771_712)
        );
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit(""), None);
    }
}

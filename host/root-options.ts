/** What dpkg and apt are told in the Debian roots that we make: for images and for build machines the same. */

/**
 * Lines of dpkg.cfg(5): no documentation but copyrights, no translations. A later path-include wins over an earlier
 * path-exclude. Without fsync after each file a root with gcc takes 26 s instead of 36: a root that was cut short is thrown away
 * as a whole, so syncing buys nothing.
 */
export const DPKG_OPTIONS: readonly string[] = [
  'force-unsafe-io',
  'path-exclude=/usr/share/doc/*',
  'path-include=/usr/share/doc/*/copyright',
  'path-exclude=/usr/share/info/*',
  'path-exclude=/usr/share/lintian/*',
  'path-exclude=/usr/share/locale/*',
  'path-include=/usr/share/locale/locale.alias',
  'path-exclude=/usr/share/man/*',
];

/** Statements of apt.conf(5), without their semicolons. */
export const APT_OPTIONS: readonly string[] = [
  'Acquire::Languages "none"',
  'APT::Install-Recommends "false"',
  'Acquire::Retries "3"',
];

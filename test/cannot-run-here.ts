/**
 * Reasons for which a test may be skipped even where CI is set: what some machines cannot do, whatever we install.
 */

/** A part of the skip's reason → why that cannot be helped. */
export const CANNOT_RUN_HERE: Readonly<Record<string, string>> = {
  'needs KVM': 'a virtual machine without nested virtualisation has none; everything that boots runs under TCG too',
  'needs arm64': 'the test is about a binary of the other architecture',
};

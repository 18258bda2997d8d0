/**
 * From root to a user that may do little, once the sockets are there: groups, group, user, in this order, for all threads
 * (glibc sees to that); the right to bind low ports may stay. What the folder then looks like is checked, so that a server that can read nothing does not start.
 */
import { accessSync, constants, readFileSync } from 'node:fs';
import { dirname } from 'node:path';

import { loadFfi } from '../tftp/driver-syscalls.ts';

/** Privileges cannot be dropped, or too few are left. */
export class PrivilegeError extends Error {
  readonly hint: string;

  constructor(message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'PrivilegeError';
    this.hint = hint;
  }
}

/** A user of this machine. */
export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/**
 * Finds out whom to become.
 *
 * @param wanted - a name of /etc/passwd or `UID:GID`; undefined: `nobody`, for root
 * @param passwd - text of /etc/passwd
 * @returns undefined: stay what we are
 * @throws {PrivilegeError} when there is no such user, or it is another one and we are not root
 */
export function chooseUser(wanted: string | undefined, uid: number, passwd: string): User | undefined {
  if (uid !== 0 && wanted === undefined) return undefined;
  const user = findUser(wanted ?? 'nobody', passwd);
  if (user.uid === uid) return undefined;
  if (uid !== 0) {
    throw new PrivilegeError(
      `Cannot become the user ${user.name}: not started as root`,
      'leave out --user, or use sudo',
    );
  }
  return user;
}

/** The text of /etc/passwd. */
export function readPasswd(): string {
  return readFileSync('/etc/passwd', 'utf8');
}

function findUser(wanted: string, passwd: string): User {
  const [, uid, gid] = /^(\d{1,10}):(\d{1,10})$/.exec(wanted) ?? [];
  if (uid !== undefined && gid !== undefined) return { name: wanted, uid: Number(uid), gid: Number(gid) };
  for (const line of passwd.split('\n')) {
    const [name, , lineUid, lineGid] = line.split(':');
    if (name === wanted) return { name, uid: Number(lineUid), gid: Number(lineGid) };
  }
  throw new PrivilegeError(`There is no user ${wanted} in /etc/passwd`, 'give another one with --user, or UID:GID');
}

/**
 * Becomes the user, for good.
 *
 * @param options.keepsBinding - keep the right to bind ports below 1024, for addresses that appear later; nothing else, and for
 *   this thread only. Without node:ffi it is not kept
 * @throws {PrivilegeError} when that fails or is not for good
 */
export function becomeUser(user: User, options: { readonly keepsBinding: boolean }): void {
  const capabilities = options.keepsBinding ? openCapabilities() : undefined;
  try {
    capabilities?.keep();
    process.setgroups?.([user.gid]);
    process.setgid?.(user.gid);
    process.setuid?.(user.uid);
    capabilities?.leaveBinding();
  } catch (error) {
    const hint = 'in a container without this right, --user root goes on as root';
    throw new PrivilegeError(`Cannot become the user ${user.name} (${user.uid}:${user.gid})`, hint, { cause: error });
  }
  if (user.uid !== 0 && canBecomeRoot()) {
    throw new PrivilegeError(`The user ${user.name} can become root again`, 'take another one with --user');
  }
}

/** linux/prctl.h, linux/capability.h. */
const PR_SET_KEEPCAPS = 8;
const CAP_NET_BIND_SERVICE = 10;
const CAPABILITY_VERSION_3 = 0x20080522;

/** capabilities(7) of this thread, or undefined where they cannot be had. */
function openCapabilities(): { readonly keep: () => void; readonly leaveBinding: () => void } | undefined {
  try {
    const { functions } = loadFfi().dlopen(null, {
      prctl: { arguments: ['i32', 'u64', 'u64', 'u64', 'u64'], return: 'i32' },
      capset: { arguments: ['buffer', 'buffer'], return: 'i32' },
    });
    return {
      /** What is permitted survives setuid(2). */
      keep() {
        if (functions.prctl(PR_SET_KEEPCAPS, 1n, 0n, 0n, 0n) !== 0) throw new Error('prctl(PR_SET_KEEPCAPS) failed');
      },
      /** Of all that survived, one is left. */
      leaveBinding() {
        // struct __user_cap_header_struct: version, pid (0: this thread).
        const header = new Uint32Array([CAPABILITY_VERSION_3, 0]);
        // struct __user_cap_data_struct, twice: effective, permitted, inheritable; the first has capabilities 0 to 31.
        const bit = 1 << CAP_NET_BIND_SERVICE;
        const data = new Uint32Array([bit, bit, 0, 0, 0, 0]);
        if (functions.capset(header, data) !== 0) throw new Error('capset failed');
      },
    };
  } catch {
    return undefined;
  }
}

function canBecomeRoot(): boolean {
  try {
    process.setuid?.(0);
    return true;
  } catch {
    return process.getuid?.() === 0;
  }
}

/**
 * Checks that the folder can be served by who we are now.
 *
 * @throws {PrivilegeError} naming the folder that is in the way
 */
export function checkFolder(folder: string, isWritable: boolean, userName: string): void {
  const wanted = constants.R_OK | constants.X_OK | (isWritable ? constants.W_OK : 0);
  try {
    accessSync(folder, wanted);
  } catch (error) {
    const closed = ancestorsOf(folder).find((path) => !isAllowed(path, constants.X_OK));
    const hint =
      closed === undefined
        ? `let it: chown or chmod ${folder}; or serve as another user with --user`
        : `${closed} lets nobody else in: serve a folder elsewhere, chmod o+x ${closed}, or take another --user`;
    const what = isWritable ? 'read and write' : 'read';
    throw new PrivilegeError(`The user ${userName} cannot ${what} the folder ${folder}`, hint, { cause: error });
  }
}

/** `/`, `/srv`, … without the folder itself. */
function ancestorsOf(folder: string): readonly string[] {
  const above = dirname(folder);
  return above === folder ? [] : [...ancestorsOf(above), above];
}

function isAllowed(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

/** Node's shared libraries in a folder of their own, so that Node runs in machines of any distribution. */
import { lines } from '../../connections/connection.ts';
import { defineProperty, type PropertyApplication } from '../../properties/property.ts';
import { NODE_LIBRARIES, NODE_LOADER } from '../node-runtime.ts';

/** They look at files or change them. */
const OWN = { ownFiles: true } as const;

const LIBRARIES = '/usr/lib/x86_64-linux-gnu';

/** `ld-linux-x86-64.so.2` and what it loads: `<folder>/ld-linux-x86-64.so.2 --library-path <folder> node …` works anywhere. */
const FILES: readonly { readonly from: string; readonly name: string }[] = [
  { from: `/${NODE_LOADER}`, name: NODE_LOADER.slice(NODE_LOADER.lastIndexOf('/') + 1) },
  ...NODE_LIBRARIES.map((name) => ({ from: `${LIBRARIES}/${name}`, name })),
];

/** The folder holds copies of the host's own libraries that Node needs, and of the loader. */
export const nodeRuntime: (folder: string) => PropertyApplication = defineProperty<[folder: string]>({
  id: 'node.hasRuntime',
  kind: 'posix',
  describe: (folder) => `Node's libraries are in ${folder}`,
  hostattrs: () => ({ packages: ['libatomic1', 'libstdc++6'] }),
  facts: (folder) => FILES.map(({ name }) => ({ fact: 'file', path: `${folder}/${name}`, digest: true }) as const),
  check: async (host, folder) => {
    const held = FILES.map(({ name }) => host.facts.file(`${folder}/${name}`)?.sha256);
    // sha256sum follows links, and the libraries of the host are links to versions.
    const wanted = lines(await host.run(['sha256sum', ...FILES.map(({ from }) => from)], OWN));
    return FILES.every((_, index) => held[index] !== undefined && wanted[index]?.startsWith(`${held[index]} `));
  },
  apply: async (host, folder) => {
    await host.run(['install', '--directory', '--mode=0755', folder], OWN);
    for (const { from, name } of FILES) await host.run(['install', '--mode=0755', from, `${folder}/${name}`], OWN);
  },
  unapply: async (host, folder) => {
    await host.run(['rm', '--recursive', '--force', folder], OWN);
  },
});

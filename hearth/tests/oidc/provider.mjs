// An OpenID provider: `node provider.mjs NODE_MODULES PORT SECONDS KEYS KEY…`. Its tokens (grant client_credentials, client `hearth-test`) live for SECONDS; their
// audience is the resource that is asked for. Keys are by name in the folder KEYS, made where they are not there; the first signs.
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [modules, port, seconds, folder, ...names] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(createRequire(modules + '/x.js').resolve('oidc-provider')));
const keys = names.map(kid => {
  const file = `${folder}/${kid}.json`;
  if (!existsSync(file)) writeFileSync(file, JSON.stringify(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' })));
  return { ...JSON.parse(readFileSync(file)), kid, use: 'sig', alg: 'RS256' };
});
const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: { keys },
  clients: [{ client_id: 'hearth-test', client_secret: 'secret-of-the-client', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] }],
  scopes: ['hearth:read', 'hearth:write'],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({ scope: 'hearth:read hearth:write', audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
    },
  },
  extraTokenClaims: () => ({ tenants: ['team-of-tokens'] }),
  ttl: { ClientCredentials: Number(seconds) },
});
provider.listen(Number(port), '127.0.0.1', () => console.log('listening'));

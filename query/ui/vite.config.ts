import { defineConfig } from 'vite';

// Names carry a hash of what is inside, so that a browser may keep a file for ever; index.html alone keeps its name.
export default defineConfig({
  base: './',
  publicDir: false,
  build: {
    outDir: 'build',
    emptyOutDir: true,
    assetsDir: 'ui',
    target: 'es2022',
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    chunkSizeWarningLimit: 600,
  },
  server: {
    // `npm run dev` shows the page against a Hearth that runs beside it.
    proxy: { '/api': 'http://localhost:9494', '/-': 'http://localhost:9494' },
  },
});

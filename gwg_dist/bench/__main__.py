from gwg_dist.bench.cli import main

main()
